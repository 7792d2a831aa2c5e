package log_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	raftlog "github.com/ballast-raft/ballast/log"
	"github.com/ballast-raft/ballast/messages"
	"github.com/cockroachdb/datadriven"
)

// story is the state of one file of testdata/stories. Its commands:
//
//	open [segment-bytes=N] [verify]   open, say what was repaired and how far it is durable
//	close                         close
//	append [group=N] [term=N] [hard=(term,vote,commit)]   the payloads, one a line
//	truncate-from, truncate-before, reset  [group=N] index=N [term=N]
//	set [group=N] name=S [value=S]         no value: remove
//	sync [fail=N]                 the N-th step that goes to the disk fails
//	maintain                      Maintain, and Sync when it asks for one, until nothing is due
//	scrub                         once around: what is damaged
//	show                          bounds, entries and stable values
//	files                         the segments, the sizes of their records, and what else there is of each
//	records                       every record, as inspect sees it
//	save-mark, restore-mark       keep the mark, put it back: a power cut loses its updates
//	cut, zero, flip  [segment=N] [summary] back=N    damage N bytes before the end of a segment (the last by
//	                              default), or of its summary; without zeros
//	remove name=S                 remove a file
type story struct {
	dir  string
	w    *raftlog.WAL
	disk faults
	mark []byte
}

func TestStories(t *testing.T) {
	datadriven.Walk(t, filepath.Join("testdata", "stories"), func(t *testing.T, path string) {
		s := &story{dir: memory(t)}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			return strings.NewReplacer(s.dir+"/", "", s.dir, "DIR").Replace(s.run(t, d))
		})
		if s.w != nil {
			mustClose(t, s.w)
		}
	})
}

func (s *story) run(t *testing.T, d *datadriven.TestData) string {
	var group, index, term, fail, segment, back, limit uint64
	var name, value string
	for key, at := range map[string]*uint64{"group": &group, "index": &index, "term": &term, "fail": &fail,
		"segment": &segment, "back": &back, "segment-bytes": &limit} {
		d.MaybeScanArgs(t, key, at)
	}
	d.MaybeScanArgs(t, "name", &name)
	d.MaybeScanArgs(t, "value", &value)
	position := func(p uint64, err error) string {
		if err != nil {
			return err.Error()
		}
		return fmt.Sprintf("position %d", p)
	}
	switch d.Cmd {
	case "open", "files", "records", "save-mark", "restore-mark", "cut", "zero", "flip", "remove":
	default:
		if s.w == nil {
			return "not open"
		}
	}
	switch d.Cmd {
	case "open":
		var b strings.Builder
		w, err := raftlog.Open(s.dir, raftlog.Options{Disk: s.disk.disk(), SegmentBytes: int(limit), VerifyAll: d.HasArg("verify"), OnRepair: func(r messages.TailRepaired) {
			fmt.Fprintf(&b, "repaired %s: %d bytes at %d: %s\n", r.Path, r.Bytes, r.Offset, r.Reason)
		}})
		if err != nil {
			if s.w != nil {
				t.Fatal("still open")
			}
			return b.String() + err.Error()
		}
		s.w = w
		fmt.Fprintf(&b, "durable %d", w.Durable())
		return b.String()
	case "close":
		err := s.w.Close()
		s.w = nil
		if err != nil {
			return err.Error()
		}
		return ""
	case "append":
		var es []messages.Entry
		if d.Input != "" {
			for _, line := range strings.Split(d.Input, "\n") {
				es = append(es, messages.Entry{Term: term, Data: []byte(line)})
			}
		}
		var hs *messages.HardState
		if d.HasArg("hard") {
			hs = &messages.HardState{}
			d.ScanArgs(t, "hard", &hs.Term, &hs.Vote, &hs.Commit)
		}
		return position(s.w.Append(group, es, hs))
	case "truncate-from":
		return position(s.w.TruncateFrom(group, index))
	case "truncate-before":
		return position(s.w.TruncateBefore(group, index))
	case "reset":
		return position(s.w.Reset(group, index, term))
	case "set":
		var v []byte
		if d.HasArg("value") {
			v = []byte(value)
		}
		return position(s.w.SetStable(group, name, v))
	case "sync":
		if s.disk.failAt = 0; fail > 0 {
			s.disk.failAt = s.disk.steps + int(fail)
		}
		n, err := s.w.Sync()
		s.disk.failAt = 0
		if err != nil {
			return fmt.Sprintf("%d changes, %v\npoisoned %v, durable %d", n, err, s.w.Poisoned(), s.w.Durable())
		}
		return fmt.Sprintf("%d changes, durable %d", n, s.w.Durable())
	case "maintain":
		if err := maintain(s.w); err != nil {
			return err.Error()
		}
		return fmt.Sprintf("durable %d", s.w.Durable())
	case "scrub":
		damage, err := scrub(s.w)
		if err != nil {
			return err.Error()
		}
		var b strings.Builder
		for _, d := range damage {
			fmt.Fprintf(&b, "group %d, index %d: %v\n", d.Group, d.Index, d.Err)
		}
		return b.String()
	case "show":
		text, _, err := survey(s.w)
		if err != nil {
			return err.Error()
		}
		return text
	case "files":
		var b strings.Builder
		fs := readFiles(t, s.dir)
		for _, name := range fs.segments() {
			fmt.Fprintf(&b, "%s %d bytes", filepath.Dir(name), end(fs[name]))
			if end(fs[name]) < len(fs[name]) {
				b.WriteString(" and zeros")
			}
			if _, ok := fs[beside(name, "SUMMARY")]; ok {
				b.WriteString(", summary")
			}
			b.WriteString("\n")
		}
		return b.String()
	case "records":
		var b strings.Builder
		r, err := raftlog.InspectRecords(s.dir, func(r raftlog.RecordReport) {
			fmt.Fprintf(&b, "%d %s group %d, %d to %d of term %d", r.WALIndex, r.Kind, r.Group, r.First, r.Last, r.Term)
			if r.DurableBefore {
				b.WriteString(", durable before")
			}
			b.WriteString("\n")
		})
		if err != nil {
			return err.Error()
		}
		fmt.Fprintf(&b, "floor %d, mark %d\n", r.Floor, r.Mark.Sequence)
		if r.Torn != nil {
			fmt.Fprintf(&b, "torn: %d bytes at %d\n", r.Torn.Bytes, r.Torn.Offset)
		}
		for _, c := range r.Damage {
			fmt.Fprintln(&b, c)
		}
		return b.String()
	case "save-mark":
		s.mark = readFiles(t, s.dir)["MARK"]
		return ""
	case "restore-mark":
		if err := os.WriteFile(filepath.Join(s.dir, "MARK"), s.mark, 0o644); err != nil {
			t.Fatal(err)
		}
		return ""
	case "cut", "zero", "flip":
		fs := readFiles(t, s.dir)
		names := fs.segments()
		target := names[len(names)-1]
		if segment != 0 {
			target = fmt.Sprintf("wal/%08d/%s", segment, logFile)
		}
		if d.HasArg("summary") {
			target = beside(target, "SUMMARY")
		}
		data := fs[target]
		size := end(data)
		at := size - int(back)
		switch d.Cmd {
		case "cut":
			data = data[:at]
		case "zero":
			clear(data[at:])
		case "flip":
			data[at] ^= 1
		}
		if err := os.WriteFile(filepath.Join(s.dir, target), data, 0o644); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%s at %d of %d", target, at, size)
	case "remove":
		if err := os.Remove(filepath.Join(s.dir, name)); err != nil {
			t.Fatal(err)
		}
		return ""
	}
	t.Fatalf("unknown command %s", d.Cmd)
	return ""
}

// end is where the zeros begin.
func end(data []byte) int { return len(bytes.TrimRight(data, "\x00")) }
