// Package log is the Raft log: entries, hard states and small named values of
// any number of groups, durable in one sequence of records, with one sync for
// all of them. Import it as raftlog; it never uses the standard log package.
//
// Store is the contract. Open gives the implementation on disk, a WAL, whose
// append path is github.com/tidwall/wal. That engine has no checksums, does
// not repair what a crash leaves behind, and never syncs a directory, so this
// package frames every record itself, verifies and repairs the files before
// the engine sees them, syncs through a descriptor of its own, and reads by
// pread from an index of its own. See DESIGN.md for the reasons and the
// measurements.
//
// Whoever uses a WAL without the log actor calls Sync for durability, and
// Maintain, beside the appends, whenever Due says so; Scrub as often as he
// wants closed segments to be verified.
//
// # Files
//
//	MANIFEST    64 bytes, replaced in one step
//	MARK        64 bytes, see durable.Mark: how far the log is known to be durable;
//	            its File is the ordinal of a segment
//	LOCK        empty, held while the log is open
//	wal/%08d/   segments; the name is the ordinal, from 1 without gaps
//	    00000000000000000001   a log of the engine, of this one file
//	    SUMMARY                of a closed segment
//
// Integers are little-endian or unsigned varints (shortest form only).
//
//	MANIFEST  0   magic "BLSTLOG1"
//	          8   version, 4 bytes: 3
//	          12  CRC32C of bytes 0 to 12 and 16 to 64, 4 bytes
//	          16  identity of the log, 16 random bytes
//	          32  floor, 8 bytes: wal index of the first record that must exist
//	          40  wal index of the checkpoint that stands for the records below
//	              the floor, 8 bytes; 0 if the floor is 1
//	          48  ordinal of the segment that the floor begins, 8 bytes
//	          56  zero, 8 bytes
//
//	segment   (length varint, record)*, then nothing but zeros; or, if its file
//	          was an older segment, (length varint, fence or record)* with a fence
//	          first and before every batch, a zero, and older records
//	record    0   check, 4 bytes
//	          4   kind (bits 0 to 2) and flags (bits 3 to 7), 1 byte
//	          5   body
//
// A record has at least 6 bytes, so a zero where a length should be always
// means the end. Records are numbered from 1 without gaps, over all segments:
// the wal index, which is also the position that Store's methods return. With
// seed = CRC32C of the identity,
//
//	check = CRC32C(kind byte and body) XOR (uint32(wal index) * 0x9E3779B1 + seed)
//
// so a record at another place or from another log fails, and the low 32 bits
// of the index can be recovered from a record whose place is unknown.
//
//	bit 7  durableBefore: every record before this one was durable when this
//	       one was written; set on the first record of each sync
//	bit 3  the body begins with the group; otherwise the group is 0
//
//	kind  name            other flags                  body (all varints, but for data)
//	0     extended        -                            the next byte is the kind: 1 a fence, which
//	                                                   has no wal index of its own; others are
//	                                                   reserved
//	1     append          bit 4 hard state             [group] [term vote commit]
//	                      bit 5 terms differ           [first index, first term, count, entry*]
//	                      bit 6 types                  (no entries: nothing after the hard state)
//	2     truncateFrom    -                            [group] index
//	3     truncateBefore  -                            [group] index, term of index-1
//	4     reset           -                            [group] index, term; Commit becomes index
//	5     stable          bit 6 removed                [group] name length, name, value up to the end
//	6     checkpoint      (no group)                   count, group metadata*
//	7     relocated       bits 5, 6 as for append      as append, without a hard state: entries
//	                      bit 4 damaged                that were copied here from an older segment;
//	                                                   if damaged, what was left of their bytes, and
//	                                                   the CRC32C in their locators is complemented
//
//	entry           [type, 1 byte, if bit 6] [term minus the term before, if bit 5 and not the
//	                first] [length, but for the last entry] data
//	fence           magic, 8 bytes (by the seed and the segment's ordinal), and the wal index
//	                of the record behind it, 8 bytes, or zero at the beginning of the segment
//	group metadata  group, first, count of entries, term of first-1, term of the last entry,
//	                hard state (term vote commit), count of stable values,
//	                (name length, name, value length, value)*; in ascending order
//
//	SUMMARY   0   magic "BLSTSUM1"
//	          8   version, 4 bytes: 1
//	          12  CRC32C of bytes 0 to 12 and from 16 to the locators, 4 bytes
//	          16  identity of the log, 16 bytes
//	          32  ordinal, 8 bytes
//	          40  wal index of the first record, 8 bytes
//	          48  count of records, 8 bytes
//	          56  where the last one ends, 8 bytes
//	          64  the Raft index that was appended last, 8 bytes
//	          72  length of the metadata, 4 bytes
//	          76  CRC32C of the locators, 4 bytes
//	          80  length of the locators, 8 bytes
//	          88  metadata: count of groups, then for each, in ascending order:
//	              group, flags (1 byte), [cut, flag 1] [first and the term before it, 2]
//	              [last, 4] [hard state, 8] [commit, 16], count of moved stretches,
//	              [stretch, 64] moved stretch*, count of stable values,
//	              (name length, name, value length + 1 or 0 if removed, value)*;
//	              flag 32: the stable values are all there are
//	          …   locators: offset, size and CRC32C of each entry, 12 bytes
//	stretch   first index, count, bytes of data, bytes of the records around it, terms, types
//	terms, types  count, (index minus the one before, value)*
//
// # Concurrency
//
// Every method of a WAL is safe for concurrent use. Staging (Append,
// TruncateFrom, …) holds a mutex while it encodes, and never during I/O;
// reads hold a read lock while they look up, and none while they read. Sync and
// Maintain run beside each other; only where the next segment is not ready in
// time does Sync wait for it. The package starts no goroutines.
package log
