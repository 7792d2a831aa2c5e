package snapshot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/ballast-raft/ballast/messages"
)

// output is the file that a writer or an importer fills, until it has its final
// name.
type output struct {
	dir  *Dir
	path string // while it is unfinished
	keep bool   // it outlives its writer
	f    *os.File

	offset int64 // bytes written
	synced int64 // of them durable, as far as is known
	named  bool  // its name is durable
	failed bool  // a sync has failed
}

// create makes the file, which must not be there.
func (o *output) create() (err error) {
	o.f, err = os.OpenFile(o.path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	return err
}

// write appends b. What is kept is synced now and then, so that a power cut
// does not take all of it.
func (o *output) write(b []byte) error {
	n, err := o.f.Write(b)
	o.offset += int64(n)
	if err != nil || !o.keep || o.offset-o.synced < o.dir.options.PartialSyncBytes {
		return err
	}
	return o.sync()
}

// sync makes what was written durable, under its name.
func (o *output) sync() error {
	if err := o.syncData(); err != nil {
		return err
	}
	if o.named {
		return nil
	}
	if err := o.dir.options.Disk.SyncDir(o.dir.path); err != nil {
		return err
	}
	o.named = true
	return nil
}

// syncData makes the bytes durable. After a failure the kernel takes pages for
// written that are not: they would pass every check until they are read from
// the disk. So the file is cut to what an earlier sync has covered.
func (o *output) syncData() error {
	if err := o.dir.options.Disk.Sync(o.f); err != nil {
		o.failed = true
		cut := o.f.Truncate(o.synced)
		if cut != nil {
			o.synced = 0 // not to be kept
		}
		return errors.Join(err, cut)
	}
	o.synced = o.offset
	return nil
}

// publish makes the complete file durable, first its bytes, then its final
// name, under which it is hidden until then.
func (o *output) publish(id string) error {
	err := o.syncData()
	err = errors.Join(err, o.close())
	if err != nil {
		return err
	}
	d, final := o.dir, o.dir.filePath(id)
	disk := d.options.Disk
	defer d.publishing.lock(id)()
	if _, err := os.Lstat(final); err == nil && !d.isHidden(id) {
		return fmt.Errorf("%s has appeared meanwhile: %w", final, messages.ErrConflict)
	}
	d.mu.Lock()
	d.hidden[id] = struct{}{}
	d.mu.Unlock()
	if err := disk.Rename(o.path, final); err != nil {
		// Whether the name has changed is not known, but nobody else's file
		// can have it.
		return errors.Join(err, o.remove(final))
	}
	if err := disk.SyncDir(o.dir.path); err != nil {
		if o.keep {
			back := disk.Rename(final, o.path)
			if back == nil {
				return err
			}
			err = errors.Join(err, back)
		}
		return errors.Join(err, o.remove(final))
	}
	d.mu.Lock()
	delete(d.hidden, id)
	d.mu.Unlock()
	return nil
}

// suspend ends the file and keeps it if there is more in it than useless bytes,
// and reports whether it did.
func (o *output) suspend(useless int64) (kept bool, err error) {
	if o.f != nil {
		if !o.failed {
			err = o.sync()
		}
		err = errors.Join(err, o.close())
	}
	if o.synced > useless {
		return true, err
	}
	return false, errors.Join(err, o.remove(o.path))
}

// discard ends the file and removes it.
func (o *output) discard() error { return errors.Join(o.close(), o.remove(o.path)) }

func (o *output) close() (err error) {
	if o.f != nil {
		err = o.f.Close()
		o.f = nil
	}
	return err
}

// remove removes a name that may be there or not. It need not be durable: a
// temporary name is removed by the next OpenDir, an unfinished file is used
// only for what is good in it, and a final name has a whole file behind it.
func (o *output) remove(path string) error {
	if err := o.dir.options.Disk.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
