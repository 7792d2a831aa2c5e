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
// # Files
//
//	MANIFEST    64 bytes, replaced in one step
//	MARK        64 bytes, see durable.Mark: how far the log is known to be durable
//	LOCK        empty, held while the log is open
//	wal/%020d   segments; the name is the wal index of the first record
//
// Integers are little-endian or unsigned varints (shortest form only).
//
//	MANIFEST  0   magic "BLSTLOG1"
//	          8   version, 4 bytes: 1
//	          12  CRC32C of bytes 0 to 12 and 16 to 64, 4 bytes
//	          16  identity of the log, 16 random bytes
//	          32  floor, 8 bytes: wal index of the first record that must exist
//	          40  wal index of the checkpoint that stands for the records below
//	              the floor, 8 bytes; 0 if the floor is 1
//	          48  zero, 16 bytes
//
//	segment   (length varint, record)*, then nothing but zeros
//	record    0   check, 4 bytes
//	          4   kind (bits 0 to 2) and flags (bits 3 to 7), 1 byte
//	          5   body
//
// A record has at least 6 bytes, so a zero where a length should be always
// means the end. Records are numbered from 1 without gaps: the wal index, which
// is also the position that Store's methods return. With seed = CRC32C of the
// identity,
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
//	0     extended        -                            reserved: the next byte is the kind
//	1     append          bit 4 hard state             [group] [term vote commit]
//	                      bit 5 terms differ           [first index, first term, count, entry*]
//	                      bit 6 types                  (no entries: nothing after the hard state)
//	2     truncateFrom    -                            [group] index
//	3     truncateBefore  -                            [group] index, term of index-1
//	4     reset           -                            [group] index, term; Commit becomes index
//	5     stable          bit 6 removed                [group] name length, name, value up to the end
//	6     checkpoint      (no group)                   count, group metadata*
//	7     relocated       -                            reserved: entries copied forward
//
//	entry           [type, 1 byte, if bit 6] [term minus the term before, if bit 5 and not the
//	                first] [length, but for the last entry] data
//	group metadata  group, first, count of entries, term of first-1, term of the last entry,
//	                hard state (term vote commit), count of stable values,
//	                (name length, name, value length, value)*; in ascending order
//
// # Concurrency
//
// Every method of a WAL is safe for concurrent use. Staging (Append,
// TruncateFrom, …) holds a mutex while it encodes, and never during I/O;
// reads hold a read lock while they look up, and none while they read.
package log
