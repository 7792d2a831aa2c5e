package snapshot

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/messages/durable"
)

// Import implements Store. What is there of an unfinished import is read by
// this call and kept up to its last block that passes its checksum.
//
// Errors: messages.ErrInvalid (no id), messages.ErrDiskFull,
// messages.ErrStopped.
func (d *Dir) Import(id string) (Importer, int64, error) {
	m, err := d.newImport(id)
	if err != nil {
		return nil, 0, fmt.Errorf("snapshot: import %s: %w", printable(id), durable.Wrap(err))
	}
	return m, m.out.offset, nil
}

func (d *Dir) newImport(id string) (*importer, error) {
	m := &importer{dir: d, id: id, out: output{dir: d, keep: true}}
	var info messages.SnapshotInfo
	if id != "" {
		var err error
		if info, err = ParseID(id); err != nil {
			return nil, err
		}
	}
	d.expire()
	m.mu.Lock()
	defer m.mu.Unlock()
	d.mu.Lock()
	err := d.running()
	if err == nil {
		d.importers = append(d.importers, m)
	}
	d.mu.Unlock()
	if err != nil || id == "" {
		return m, err
	}
	if err := m.goOn(info); err != nil {
		return nil, m.fail(err)
	}
	return m, nil
}

// importer implements Importer. The stream begins with the envelope; then comes
// the header, if it begins at the beginning; what follows goes to the file and
// is checked when it is complete. The mutex is for Dir.Close and for a later
// import, which may come at any time.
type importer struct {
	dir *Dir
	id  string // that it must have, or empty

	mu       sync.Mutex
	out      output
	info     messages.SnapshotInfo // once it is known
	header   header                // once it is known
	envelope envelope
	head     []byte // envelope or header, until it is complete
	stage    stage
	pinned   bool // stage there: the snapshot in question

	partName string // of the unfinished file, once it is ours
	kept     bool   // it has ended, and that file is still there

	err error // every further call fails with it
}

// ID implements Importer.
func (m *importer) ID() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return cmp.Or(m.info.ID, m.id)
}

type stage int

const (
	inEnvelope stage = iota
	inHeader
	inFile
	there // the snapshot is there already: the rest is not needed
)

// goOn takes over the unfinished import of an id, if there is one.
func (m *importer) goOn(info messages.SnapshotInfo) error {
	found, err := m.claim(info)
	if err != nil || !found {
		return err
	}
	st, err := os.Lstat(m.out.path)
	if err != nil {
		return err
	}
	m.out.synced = st.Size() // kept, if it cannot be read now
	f, err := os.Open(m.out.path)
	if err != nil {
		return err
	}
	x := &file{f: f, path: m.out.path, info: info}
	err = x.readUnfinishedHeader()
	var bad *damage
	switch {
	case errors.As(err, &bad) || errors.Is(err, messages.ErrIncompatible):
		// Nothing to go on with: it is replaced when the stream comes.
		m.out.synced = 0
		return f.Close()
	case err != nil:
		return errors.Join(err, f.Close())
	}
	if err := f.Close(); err != nil {
		return err
	}
	m.info, m.header = info, x.header
	end, _, err := m.out.reopen(&m.header, false)
	if err != nil {
		return err
	}
	return m.out.cut(end)
}

// readUnfinishedHeader is readHeader for a file that may end anywhere.
func (x *file) readUnfinishedHeader() error {
	st, err := x.f.Stat()
	if err != nil {
		return err
	}
	if x.info.FileBytes = st.Size() + minFile; st.Size() < headerFixed+crcBytes {
		return &damage{0, "the header is not complete", nil}
	}
	return x.readHeader()
}

// claim makes m the one that writes the import of an id, and reports whether
// there is something of it.
func (m *importer) claim(info messages.SnapshotInfo) (found bool, err error) {
	d := m.dir
	defer d.claims.lock(slot{info.Group, true})()
	p, err := d.claim(slot{info.Group, true}, func(p partial) (bool, error) {
		if p.info.ID != info.ID {
			return false, nil
		}
		_, err := os.Lstat(d.filePath(info.ID))
		if errors.Is(err, fs.ErrNotExist) {
			return true, nil
		}
		return false, err // it has been finished
	})
	if err != nil {
		return false, err
	}
	name := importName(info.ID)
	m.out.path = filepath.Join(d.path, name)
	if err := d.own(name, m); err != nil {
		return false, err
	}
	m.partName = name
	return p != nil, nil
}

// Write implements Importer.
//
// Errors: messages.ErrMalformed (not an exported snapshot, or longer than it
// says), messages.ErrCorrupt, messages.ErrIncompatible, messages.ErrInvalid
// (another snapshot than the id names, or not from where this import is),
// messages.ErrConflict (another snapshot has the id), messages.ErrDiskFull,
// messages.ErrExpired (taken over), messages.ErrStopped.
func (m *importer) Write(p []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return 0, m.failed("write", m.err)
	}
	n, err := m.take(p)
	if err != nil {
		return n, m.failed("write", m.fail(err))
	}
	return n, nil
}

func (m *importer) take(p []byte) (taken int, err error) {
	for taken < len(p) && err == nil {
		switch m.stage {
		case inEnvelope, inHeader:
			taken += m.collect(p[taken:])
			err = m.advance()
		case inFile:
			b := p[taken:]
			if int64(len(b)) > m.envelope.fileBytes-m.out.offset {
				return taken, fmt.Errorf("more than the %d bytes that the envelope says: %w", m.envelope.fileBytes, messages.ErrMalformed)
			}
			if err = m.out.write(b); err == nil {
				taken += len(b)
			}
		case there:
			return len(p), nil
		}
	}
	return taken, err
}

// need is how many bytes of the envelope or of the header must be there before
// the next look at them.
func (m *importer) need() int {
	if m.stage == inEnvelope {
		return EnvelopeBytes
	}
	if len(m.head) < headerFixed {
		return headerFixed
	}
	return headerFixed + int(le.Uint32(m.head[40:])) + crcBytes // metaLength has seen it
}

func (m *importer) collect(p []byte) int {
	n := min(len(p), m.need()-len(m.head))
	m.head = append(m.head, p[:n]...)
	return n
}

// advance looks at the envelope or the header if enough of it is there.
func (m *importer) advance() error {
	if m.stage == inEnvelope {
		if len(m.head) < EnvelopeBytes {
			return nil
		}
		if err := m.envelope.decode(m.head); err != nil {
			return err
		}
		m.head = nil
		return m.opened()
	}
	if len(m.head) < headerFixed {
		return nil
	}
	if _, err := metaLength(m.head, m.envelope.fileBytes); err != nil {
		return inStream(err)
	}
	if len(m.head) < m.need() {
		return nil
	}
	if err := m.header.decode(m.head); err != nil {
		return inStream(err)
	}
	if m.header.crc != m.envelope.headerCRC {
		return inStream(&damage{0, "the header is not that of the envelope", nil})
	}
	if m.header.index == 0 {
		return inStream(&damage{24, "the index is zero", nil})
	}
	info := infoOf(&m.header, m.envelope.created)
	if err := m.is(info.ID); err != nil {
		return err
	}
	exists, err := m.exists(info.ID)
	if exists || err != nil {
		return err
	}
	m.info = info
	if m.partName == "" {
		if _, err := m.claim(info); err != nil {
			return err
		}
	}
	// Whatever is there is replaced.
	if err := m.out.discard(); err != nil {
		return err
	}
	m.out = output{dir: m.dir, keep: true, path: m.out.path}
	if err := m.out.create(); err != nil {
		return err
	}
	m.stage = inFile
	head := m.head
	m.head = nil
	m.header.meta = bytes.Clone(m.header.meta)
	return m.out.write(head)
}

// opened decides what the envelope means.
func (m *importer) opened() error {
	e := &m.envelope
	if e.offset == 0 {
		m.stage = inHeader
		return nil
	}
	// It goes on with what is there.
	if m.out.f == nil || m.header.crc != e.headerCRC || e.offset != m.out.offset {
		return fmt.Errorf("the stream begins at offset %d, which is not where this import is: %w", e.offset, messages.ErrInvalid)
	}
	if err := m.is(formatID(m.header.group, m.header.term, m.header.index, e.created)); err != nil {
		return err
	}
	m.stage = inFile
	_, err := m.exists(m.info.ID)
	return err
}

// is refuses the stream of another snapshot than was asked for.
func (m *importer) is(id string) error {
	if m.id != "" && m.id != id {
		return fmt.Errorf("the stream is of %s: %w", id, messages.ErrInvalid)
	}
	return nil
}

// exists reports whether the snapshot is there already, good and with the same
// content, and keeps it there. It is a conflict if it is not the same.
func (m *importer) exists(id string) (bool, error) {
	d := m.dir
	if _, err := os.Lstat(d.filePath(id)); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	if err := d.pin(id); err != nil {
		return false, err
	}
	info, err := d.verify(id)
	if errors.Is(err, messages.ErrNotFound) {
		d.unpin(id)
		return false, nil
	}
	if err == nil && info.ContentHash != m.envelope.content {
		err = fmt.Errorf("%s has the content %x and not %x: %w", id, info.ContentHash, m.envelope.content, messages.ErrConflict)
	}
	if errors.Is(err, messages.ErrCorrupt) || errors.Is(err, messages.ErrIncompatible) {
		err = fmt.Errorf("%w: %w", messages.ErrConflict, err)
	}
	if err != nil {
		d.unpin(id)
		return false, err
	}
	m.info, m.pinned, m.stage = info, true, there
	return true, nil
}

// inStream places a defect of the header into the stream.
func inStream(err error) error {
	var bad *damage
	if errors.As(err, &bad) && bad.offset >= 0 {
		return &damage{EnvelopeBytes + bad.offset, bad.reason, bad.err}
	}
	return err
}

// Finish implements Importer. If it is the last step that fails, the sync of
// the directory, a power cut that follows at once may bring the snapshot back,
// whole.
func (m *importer) Finish() (messages.SnapshotInfo, error) {
	info, err := m.finish()
	if err != nil {
		return messages.SnapshotInfo{}, m.failed("finish", err)
	}
	m.dir.finished(info.Group, info.Index)
	return info, nil
}

func (m *importer) finish() (messages.SnapshotInfo, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return messages.SnapshotInfo{}, m.err
	}
	done := fmt.Errorf("it is finished: %w", messages.ErrInvalid)
	if m.stage == there {
		also := m.abandonFile()
		m.end(done)
		return m.result(), also
	}
	if m.stage != inFile || m.out.offset != m.envelope.fileBytes {
		return messages.SnapshotInfo{}, m.fail(fmt.Errorf("%d of %d bytes of the file have come: %w", m.out.offset, m.envelope.fileBytes, io.ErrUnexpectedEOF))
	}
	if err := m.verify(); err != nil {
		return messages.SnapshotInfo{}, m.fail(err)
	}
	err := m.out.publish(m.info.ID)
	if errors.Is(err, messages.ErrConflict) {
		// Another import of it was faster; or something else has the id.
		exists, differs := m.exists(m.info.ID)
		if exists {
			also := m.abandonFile()
			m.end(done)
			return m.result(), also
		}
		err = errors.Join(err, differs)
	}
	if err != nil {
		return messages.SnapshotInfo{}, m.fail(err)
	}
	m.end(done)
	return m.result(), nil
}

// verify checks the complete file whole.
func (m *importer) verify() error {
	x, err := openPath(m.out.path, m.info)
	if err != nil {
		return err
	}
	err = m.dir.verifyBlocks(x)
	if err == nil && x.footer.content != m.envelope.content {
		err = &damage{x.info.FileBytes - footerBytes + 40, "the content hash is not that of the envelope", nil}
	}
	if err != nil {
		return errors.Join(x.failure(err), x.f.Close())
	}
	m.info = x.info
	return x.f.Close()
}

func (m *importer) result() messages.SnapshotInfo {
	info := m.info
	info.Meta = bytes.Clone(info.Meta)
	return info
}

// abandonFile removes what has been written, if anything was.
func (m *importer) abandonFile() error {
	if m.partName == "" {
		return nil
	}
	return m.out.discard()
}

// Suspend implements Importer.
func (m *importer) Suspend() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return m.failed("suspend", m.err)
	}
	if err := m.suspend(fmt.Errorf("it was suspended: %w", messages.ErrInvalid)); err != nil {
		return m.failed("suspend", durable.Wrap(err))
	}
	return nil
}

func (m *importer) suspend(reason error) (err error) {
	if m.partName != "" {
		m.kept, err = m.out.suspend(m.header.size())
	}
	if err != nil {
		reason = errors.Join(reason, durable.Wrap(err))
	}
	m.end(reason)
	return err
}

// Abort implements Importer. A second Abort does nothing.
func (m *importer) Abort() error {
	m.mu.Lock()
	var err error
	kept := m.kept
	m.kept = false
	if m.err == nil {
		err = m.abandonFile()
		m.end(fmt.Errorf("it was given up: %w", messages.ErrInvalid))
	}
	m.mu.Unlock()
	if kept {
		err = m.dir.abandon(m.partName, m)
	}
	if err != nil {
		return m.failed("abort", err)
	}
	return nil
}

// stop implements owner, and is what Dir.Close calls.
func (m *importer) stop(reason error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return nil
	}
	if err := m.suspend(reason); err != nil {
		return m.failed("stop", durable.Wrap(err))
	}
	return nil
}

// fail ends the import after err, and removes what has come if it can be of no
// use. It returns err, made understandable, and whatever else went wrong.
func (m *importer) fail(err error) error {
	var bad *damage
	if errors.As(err, &bad) {
		err = &messages.CorruptError{Path: "imported stream", Offset: bad.offset, Reason: bad.reason, Err: bad.err}
	}
	err = durable.Wrap(err)
	var also error
	switch {
	case m.partName == "":
	case useless(err) && !unreadable(err) || errors.Is(err, messages.ErrMalformed):
		also = m.out.discard()
	default:
		m.kept, also = m.out.suspend(m.header.size())
	}
	if also != nil {
		err = errors.Join(err, durable.Wrap(also))
	}
	m.end(err)
	return err
}

// end lets go of everything.
func (m *importer) end(err error) {
	m.err = err
	m.head = nil
	if m.pinned {
		m.pinned = false
		m.dir.unpin(m.info.ID)
	}
	m.dir.mu.Lock()
	m.dir.importers = slices.DeleteFunc(m.dir.importers, func(o *importer) bool { return o == m })
	m.dir.mu.Unlock()
	if m.partName != "" {
		m.dir.disown(m.partName, m, m.kept)
	}
}

func (m *importer) failed(what string, err error) error {
	name := m.info.ID
	if name == "" {
		name = m.id
	}
	if name == "" {
		return fmt.Errorf("snapshot: %s import: %w", what, err)
	}
	return fmt.Errorf("snapshot: %s import of %s: %w", what, name, err)
}
