// Package snapshot keeps snapshots of application state in one directory: rare,
// large, immutable, compressed files, every byte of which is checked.
//
// Dir is the Store on disk. A snapshot is written as a stream into a temporary
// file by a Writer and exists only when Finish has returned nil: the file is
// then complete, synced, renamed and its name synced. What is damaged is
// reported as a *messages.CorruptError and never served.
//
// # What is checked when
//
//	OpenAt, List     header, index and footer
//	Open             and every stored byte of every block, by its CRC
//	Read, ReadAt     each block by its CRC and its SHA-256, before any byte of it
//	                 is returned
//	Read to io.EOF   from the beginning: the content hash of the whole state
//	Verify, Latest   everything, on all cores; so do Cleanup and Delete check the
//	                 snapshot that they rely on
//
// So what rots on a disk is found by Open. A block whose CRC is good and whose
// content is not, as a fault of the memory or of a compressor would leave it
// while it is written, is met by whoever reads that far: let what was read take
// effect only at io.EOF, or Verify first.
//
// # Files
//
// A snapshot is one file, <id>.snap. The id is 63 characters,
//
//	<group>-<term>-<index>-<created>
//
// in lower-case hexadecimal of fixed width: 16 digits each for group, term and
// index, 12 for the creation time in Unix milliseconds. So the names of one
// group sort from old to new. The creation time is in the name and nowhere
// else, which is why the same state at the same index gives the same file bytes
// on every replica that uses the same options and the same version of the
// compressor, on machines of the same kind (s2 is in assembler, which compresses
// differently on each architecture). The content hash depends on none of these.
//
// Other names in the directory:
//
//	<id>.snap.tmp           a save from Create; removed by OpenDir
//	<id>-<level>.snap.part  a save from Resume
//	<id>.snap.import        a copy from Import
//	<id>.snap.damaged       set aside; <id>.snap.damaged.2 and so on, if taken
//	LOCK                    held by the process that has the directory open
//
// # What breaks off
//
// What a Writer from Resume or an Importer has written is kept when the process
// ends, the store is closed, the disk is full or Suspend is called. The next
// Resume or Import of the same reads it whole, keeps it up to the last good
// block, and says where to go on. Suspend and Close sync it; otherwise a power
// cut takes what was not synced, at most Options.PartialSyncBytes of file and
// what is still in compression, Concurrency+2 blocks. If a sync fails, only what
// an earlier one has covered is kept.
//
// There is at most one unfinished save and one unfinished import for each group:
// a later one of the kind ends and replaces it. They go when a snapshot of the
// group at the same or a higher index is finished, when they have not been
// written to for Options.KeepPartial, and by Discard.
//
// # Copies
//
// The stream of an Exporter is an envelope and the file, from some offset on.
// The envelope is 80 bytes:
//
//	 0   8  magic "BLSTSEXP"
//	 8   2  version: 1
//	10   2  reserved: 0
//	12   4  header CRC of the file
//	16   8  creation time, Unix milliseconds
//	24   8  length of the file
//	32  32  content hash
//	64   8  offset in the file at which the stream goes on
//	72   4  reserved: 0
//	76   4  CRC of all of the above
//
// Header and envelope make the id, so a stream from offset 0, or a file that it
// was written to, needs no other description:
//
//	x, err := from.Export(id, 0)
//	m, _, err := to.Import("")
//	_, err = io.Copy(m, x)
//	info, err := m.Finish() // info.ID == id, and the files are the same
//
// An Exporter checks every byte before it hands it out, by the checksums of the
// stored bytes. An Importer checks the envelope and the header as they come, and
// in Finish everything, decompressed, before the file gets its name. A snapshot
// that is there already, with the same content, is what Finish returns.
//
// # Damage
//
// Latest, List and Cleanup report what is damaged and leave it. SetAside gives a
// damaged file another name, after it has read it: it does not take the word of
// an earlier report. A file is damaged if its bytes are wrong. One that the disk
// cannot read (EIO) is passed over like a damaged one, but is not set aside, and
// deleted only if another of its group is good: that may pass. One that has both,
// blocks that cannot be read and blocks that are wrong, is damaged. No descriptor
// left, no permission and the like are neither, and end the operation.
//
// # Format
//
// Version 1. Integers are little-endian and unsigned. CRC is CRC-32C
// (Castagnoli). A file is a header, blocks, an index and a footer, with nothing
// between or after them.
//
//	header, 52 bytes and the metadata
//	 0   8  magic "BLSTSNAP"
//	 8   2  version: 1
//	10   1  codec of the blocks: 0 none, 1 zstd, 2 s2, 3 gzip, 4 lz4
//	11   1  flags: 0
//	12   4  block size B: bytes of state in each block but the last,
//	        512 to 16 Mi
//	16   8  group
//	24   8  index
//	32   8  term
//	40   4  length of the metadata M, at most 1 Mi
//	44   4  reserved: 0
//	48   M  metadata
//	48+M 4  CRC of all of the above: the header CRC
//
//	block, 16 bytes and the stored bytes, numbered from 0
//	 0   4  raw length: B, or for the last block 1 to B
//	 4   4  stored length S: 1 to the raw length
//	 8   4  encoding: 0 by the codec of the header, 1 as is (S = raw length)
//	12   4  CRC of: header CRC (4), block number (8), bytes 0 to 12 of this
//	        block header, stored bytes
//	16   S  stored bytes: one independent frame of the codec: a zstd frame
//	        without a checksum, an s2 block, a gzip member, an lz4 block;
//	        with codec none all blocks are as is
//
//	index, 48 bytes for each block, a hint section and a CRC
//	 0   8  offset of the block in the file
//	 8   4  raw length
//	12   4  stored length
//	16  32  SHA-256 of the raw block
//	...
//	48n  H  hints; version 1 writes none, and steps over what it finds
//	48n+H 4 CRC of: header CRC (4), all of the index above
//
//	footer, 80 bytes, the last of the file
//	 0   8  magic "BLSTSEND"
//	 8   2  version, as in the header
//	10   2  reserved: 0
//	12   4  header CRC
//	16   8  offset of the index in the file
//	24   8  number of blocks n, at most 16 Mi
//	32   8  raw length L: the length of the state, with n = ceil(L/B)
//	40  32  content hash
//	72   4  reserved: 0
//	76   4  CRC of all of the above
//
// The header CRC goes into every other checksum. A block that was moved within
// the file or comes from another file therefore fails, and so does a footer
// that does not belong to the header. In any later version the magic, the
// version and the reserved fields of header and footer keep their places, as do
// the three CRCs that cover them, so that a newer file can be told from a
// damaged one: it is refused with messages.ErrIncompatible.
//
// # Content hash
//
// The content hash is a tree hash of two levels over the state alone, so that
// any number of cores can work on it:
//
//	SHA-256( "ballast snapshot content 1\x00" (27 bytes)
//	       | B (4) | L (8)
//	       | SHA-256(block 0) | SHA-256(block 1) | … )
//
// where block k is the state from k·B to min((k+1)·B, L), uncompressed. Equal
// hashes mean equal states; equal states have equal hashes if their block sizes
// are equal. An empty state has no blocks and is legal; an empty file is
// damage.
//
// # Bounds
//
// An Exporter holds the header or a block; an Importer the header until it is
// complete, and what Verify holds while it finishes.
//
// A Writer holds at most Concurrency+2 blocks, raw and compressed, and 48 bytes
// of index for every block written. A Reader holds at most Concurrency+2 raw
// blocks and what concurrent ReadAts hold beyond them; Verify holds Concurrency
// raw blocks. Of the index of an open file 1024 entries are in memory, 48 KiB,
// and 4 bytes for each 1024: however small the blocks of a file from elsewhere
// are, it is open in 112 KiB beside its blocks (TestManyBlocks). All that read in one Dir share Concurrency buffers for
// stored blocks. 4 GiB of state take less than 64 MiB of memory in either
// direction (TestPeakMemory). A frame is never decompressed into more than the
// raw length that the index states, and nothing is allocated on the word of a
// length field alone: lengths are checked against the limits above and against
// the length of the file first.
package snapshot
