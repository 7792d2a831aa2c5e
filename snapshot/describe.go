package snapshot

import (
	"errors"
	"fmt"

	"github.com/ballast-raft/ballast/messages"
)

// Description is what header, index and footer of a snapshot say.
type Description struct {
	Info messages.SnapshotInfo
	// Path of the file.
	Path string
	// Codec of the blocks. Those that do not shrink are stored as they are.
	Codec Codec
	// BlockBytes is how much state a block holds, the last one less; Blocks is
	// how many there are.
	BlockBytes int
	Blocks     int64
}

// Describe reads and checks header, index and footer of a snapshot.
//
// Errors: those of Open, but for damage to blocks.
func (d *Dir) Describe(id string) (Description, error) {
	s, err := d.describeOne(id)
	if err != nil {
		return Description{}, fmt.Errorf("snapshot: describe %s: %w", printable(id), err)
	}
	return s, nil
}

func (d *Dir) describeOne(id string) (Description, error) {
	if err := d.running(); err != nil {
		return Description{}, err
	}
	x, err := d.openFile(id)
	if err != nil {
		return Description{}, err
	}
	return Description{x.info, x.path, Codec(codecName(x.header.codec)), int(x.header.blockBytes), x.blocks()}, x.f.Close()
}

// VerifyProgress is Verify that calls progress with the number of bytes of the
// file that each block takes, before it is checked. The calls come from several
// goroutines, one at a time or not; an error of theirs ends it and is returned.
func (d *Dir) VerifyProgress(id string, progress func(fileBytes int64) error) (messages.SnapshotInfo, error) {
	info, err := d.verifyProgress(id, progress)
	if err != nil {
		return messages.SnapshotInfo{}, fmt.Errorf("snapshot: verify %s: %w", printable(id), err)
	}
	return info, nil
}

func (d *Dir) verifyProgress(id string, progress func(int64) error) (messages.SnapshotInfo, error) {
	if err := d.running(); err != nil {
		return messages.SnapshotInfo{}, err
	}
	x, err := d.openFile(id)
	if err != nil {
		return messages.SnapshotInfo{}, err
	}
	x.progress = progress
	if err := d.verifyBlocks(x); err != nil {
		return messages.SnapshotInfo{}, errors.Join(x.failure(err), x.f.Close())
	}
	return x.info, x.f.Close()
}

// passing is called before a block is verified.
func (x *file) passing(number int64) error {
	if x.progress == nil {
		return nil
	}
	e, err := x.entry(number)
	if err != nil {
		return err
	}
	return x.progress(blockFixed + int64(e.stored()))
}
