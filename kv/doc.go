// Package kv stores application data: the state machines of any number of Raft
// groups, in memory for reading (tidwall/buntdb) and in one append-only file
// for keeping.
//
// buntdb alone loses data under kill -9: a transaction is not atomic on disk,
// the errors of fsync are discarded, and nothing has a checksum. This package
// uses its file format and, in memory, its tree, and owns what is durable: each
// change is written with a marker that covers its bytes, the file is verified
// before buntdb sees it and cut to the last good marker, writes and syncs are our
// own, and a file is only ever replaced whole.
//
// # Files
//
//	DATA      the current generation: an append-only file
//	MARK      a durable.Mark: how far DATA is known to be on disk
//	LOCK      held while the directory is open
//	*.tmp     not finished; removed by Open
//
// # DATA
//
// A sequence of commands in the Redis protocol, as buntdb reads them: "set" with a
// key and a value, "del" with a key. The commands of a change are in the order of
// their keys, and a marker ends it. While the store is open there may be zeros
// after the last marker, up to the end of the file; Open and Close cut them. The
// first byte of a key says what it is:
//
//	h                                     header, the first command of the file
//	m                                     marker, after each change
//	d uvarint(group) key                  uvarint(version) and value of a user's key
//	x uvarint(group) name                 index: its state and definition
//	i uvarint(group) uvarint(number) fields key
//	                                      index entry, without a value
//
// State and definition of an index, lengths and counts being uvarints:
//
//	number
//	skipped                               pairs that cannot be in it
//	00 | 01 examined len next             ready, or built up to the key next
//	definition                            JSON: messages.IndexDefinition.Encode
//
// Each index of a group has a number that no other has had whose entries are
// still there. It is of this store alone. Entries with a number that no index
// has are what is left of one that is gone, or was not finished; they are never
// read, and removed by MaintainIndexes.
//
// Fields are encoded so that entries sort by them and then by key; all bits of a
// descending field are flipped. In strings a zero byte is written as 00 ff and
// the end as 00 01. An index with a function has its key, terminated in the same
// way, instead of fields.
//
//	08                          missing
//	10                          null
//	20                          false
//	30                          true
//	40 8 bytes, big-endian      number: a float64 with the sign bit flipped, all bits if negative
//	48 8 bytes 4 bytes          time: Unix seconds with the sign bit flipped, nanoseconds
//	50 bytes 00 01              string
//
// Numbers are compared as float64: integers beyond 2^53 that round to the same
// float64 are equal, and what lies beyond the range of float64 is infinite. A
// negative zero is zero. An entry holds the whole string.
//
// Header, 64 bytes, little-endian:
//
//	0   magic "BLSTKVDB"
//	8   version, 4 bytes: 3
//	12  CRC32C of all other bytes, 4 bytes
//	16  identity of the generation, 16 random bytes
//	32  identity of the generation that it replaced, or zero, 16 bytes
//	48  zero, 16 bytes
//
// Marker, little-endian:
//
//	0   version, 1 byte: 3
//	1   kind, 1 byte: 0 a change, 1 the seal, 2 staged, 4 adopted
//	2   unsynced, 2 bytes: how many markers, this one included, were not known to
//	    be on disk when it was written; zero if not known
//	4   CRC32C of the bytes from start to end, 4 bytes
//	8   sequence, 8 bytes: 1 for the first of the file, then one more each
//	16  start, 8 bytes: where the marker before it ended, or zero
//	24  end, 8 bytes: where this marker's command begins
//	32  number of the import, 8 bytes: zero if it is neither staged nor adopted
//	40  number of groups, 4 bytes: one if it is either
//	44  for each: group, applied index, term, revision, 8 bytes each
//	..  CRC32C of the generation's identity and all bytes before, 4 bytes
//
// What is staged belongs to an import, and to no group yet. The marker that says
// adopted removes everything of its group and puts what the import has staged in
// its place; without one, what was staged is garbage.
//
// A generation is written under a temporary name, and is whole from its seal on,
// which has the positions of all groups. A file without a good seal is damaged,
// wherever MARK is. What comes after the seal are later changes.
//
// # Revisions and versions
//
// A group has a revision, which each change raises, and a pair has a version: the
// revision at which it was last written. The revision of an entry that Apply
// carries out is its index, or one more than the revision before if that is more
// (after direct writes); an entry that changes nothing has one too. The revision of
// an operation of Write is one more than the one before; one that changes nothing
// has none. Neither depends on how operations come together in calls, and where a
// log alone drives the data, both are the same on every replica.
//
// # The state stream
//
// What a View yields and an Import takes depends on the state alone, not on the
// store: the same state has the same bytes. Integers are little-endian, lengths
// are minimal unsigned varints.
//
//	magic "BLSTKVST", version, 4 bytes: 3
//	01 len name len definition     for each index, sorted by name
//	02 len key version len value   for each pair, sorted by key
//	04 len contents CRC32C         a page of the sparse index, between pairs
//	03 trailer                     the last 49 bytes
//
// The pairs are in blocks. A block is 64 KiB long, or 512 times the key of its
// entry if that is more, and as much longer as its last pair needs. For each
// block the sparse index has an entry: a key, which is the shortest that is
// above all keys before the block and begins the first key in it, and the
// offset of the block. Entries are gathered in pages; one that has reached 16 KiB
// is put out before the next block, and gets an entry with its first key and its
// offset in a page of the level above, which is put out in the same way, after
// it. After the last pair come the unfinished pages from the lowest level
// upwards; the last one is the root.
//
// Contents of a page, whose CRC32C covers the whole record before it:
//
//	level, 1 byte: 0 if the entries are blocks, else that of the pages plus 1
//	for each entry: len key, offset as a varint
//
// Trailer:
//
//	0   03
//	1   number of pairs, 8 bytes
//	9   length of keys and values, 8 bytes
//	17  revision, 8 bytes
//	25  offset of the root, or zero without pairs, 8 bytes
//	33  offset of the trailer, 8 bytes
//	41  CRC32C of all bytes before, 4 bytes
//	45  CRC32C of the trailer before, 4 bytes
//
// An Import verifies everything, and that the sparse index is that of the pairs.
// A State reads keys and ranges at random; it verifies the trailer and the pages
// that it reads, but pairs have no checksum but that of the stream. The content
// of a snapshot is covered by the checksums of the snapshot's own blocks.
//
// The applied index and term are not in it: they belong to the snapshot.
//
// DESIGN.md has the crash assumptions and the reasons.
package kv
