package snapshot

import (
	"fmt"
	"time"

	"github.com/ballast-raft/ballast/messages"
)

const (
	// IDLength is the length of an id.
	IDLength   = 16 + 1 + 16 + 1 + 16 + 1 + 12
	maxCreated = 1<<48 - 1 // milliseconds: the year 10889
	fileSuffix = ".snap"
)

// formatID returns the id of a snapshot that was begun at created, in Unix
// milliseconds.
func formatID(group, term, index, created uint64) string {
	return fmt.Sprintf("%016x-%016x-%016x-%012x", group, term, index, created)
}

// ParseID returns what an id says: ID, Group, Term, Index and Created. Every
// snapshot has exactly one id, so anything but 63 characters of lower-case
// hexadecimal and hyphens in their places, naming an index above zero, is an
// error that matches messages.ErrInvalid. It reads no file.
func ParseID(id string) (messages.SnapshotInfo, error) {
	invalid := func(reason string) (messages.SnapshotInfo, error) {
		return messages.SnapshotInfo{}, fmt.Errorf("snapshot: %.80q is no snapshot id: %s: %w", id, reason, messages.ErrInvalid)
	}
	if len(id) != IDLength {
		return invalid("wrong length")
	}
	var fields [4]uint64
	field := 0
	for i := range len(id) {
		c := id[i]
		switch {
		case i == 16 || i == 33 || i == 50:
			if c != '-' {
				return invalid("a hyphen is missing")
			}
			field++
		case '0' <= c && c <= '9':
			fields[field] = fields[field]<<4 | uint64(c-'0')
		case 'a' <= c && c <= 'f':
			fields[field] = fields[field]<<4 | uint64(c-'a'+10)
		default:
			return invalid("not a lower-case hexadecimal digit")
		}
	}
	if fields[2] == 0 {
		return invalid("the index is zero")
	}
	return messages.SnapshotInfo{
		ID:      id,
		Group:   fields[0],
		Term:    fields[1],
		Index:   fields[2],
		Created: time.UnixMilli(int64(fields[3])).UTC(),
	}, nil
}
