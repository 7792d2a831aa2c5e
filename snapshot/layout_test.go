package snapshot_test

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/snapshot"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// parsed is a snapshot file taken apart by what the package comment says, and
// by none of the package's code.
type parsed struct {
	header []byte   // without the CRC
	blocks [][]byte // block header and stored bytes
	index  []byte   // without the CRC, with hints if there are any
	footer []byte
}

var le = binary.LittleEndian

func crc(parts ...[]byte) uint32 {
	return crc32.Checksum(bytes.Join(parts, nil), crc32.MakeTable(crc32.Castagnoli))
}

func u32(v uint32) []byte { return le.AppendUint32(nil, v) }
func u64(v uint64) []byte { return le.AppendUint64(nil, v) }

func parse(file []byte) parsed {
	var p parsed
	p.footer = bytes.Clone(file[len(file)-80:])
	p.header = bytes.Clone(file[:48+le.Uint32(file[40:])])
	indexAt, n := le.Uint64(p.footer[16:]), le.Uint64(p.footer[24:])
	p.index = bytes.Clone(file[indexAt : len(file)-84])
	for k := range n {
		e := p.index[48*k:]
		at := le.Uint64(e)
		p.blocks = append(p.blocks, bytes.Clone(file[at:][:16+le.Uint32(e[12:])]))
	}
	return p
}

// seal computes every checksum anew, so that only what else is checked can
// refuse the file.
func (p parsed) seal() []byte {
	head := crc(p.header)
	out := append(bytes.Clone(p.header), u32(head)...)
	for k, b := range p.blocks {
		b = bytes.Clone(b)
		le.PutUint32(b[12:], crc(u32(head), u64(uint64(k)), b[:12], b[16:]))
		out = append(out, b...)
	}
	out = append(out, p.index...)
	out = append(out, u32(crc(u32(head), p.index))...)
	foot := bytes.Clone(p.footer)
	le.PutUint32(foot[12:], head)
	le.PutUint32(foot[76:], crc(foot[:76]))
	return append(out, foot...)
}

// tree computes the content hash of a state.
func tree(state []byte, block int) [32]byte {
	var leaves []byte
	for rest := state; len(rest) > 0; rest = rest[min(block, len(rest)):] {
		leaf := sha256.Sum256(rest[:min(block, len(rest))])
		leaves = append(leaves, leaf[:]...)
	}
	return sha256.Sum256(bytes.Join([][]byte{[]byte("ballast snapshot content 1\x00"), u32(uint32(block)), u64(uint64(len(state))), leaves}, nil))
}

// small writes the snapshot that the tests below take apart: three blocks that
// shrink, and one of full length and a short one that do not.
func small(t testing.TB, o snapshot.Options) (state []byte, info messages.SnapshotInfo, file []byte) {
	t.Helper()
	state = bytes.Join([][]byte{records(1, 3*512), noise(1, 512), records(2, 100)}, nil)
	o.BlockBytes, o.Now = 512, newClock().Now
	path := t.TempDir()
	d := open(t, path, o)
	info = save(t, d, 2, 77, 5, []byte("three voters"), state)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	return state, info, read(t, filepath.Join(path, info.ID+".snap"))
}

// place puts file under a snapshot's name into a new directory and opens that.
func place(t testing.TB, id string, file []byte) (*snapshot.Dir, string) {
	t.Helper()
	path := t.TempDir()
	name := filepath.Join(path, id+".snap")
	if err := os.WriteFile(name, file, 0o644); err != nil {
		t.Fatal(err)
	}
	return open(t, path, snapshot.Options{}), name
}

func TestGolden(t *testing.T) {
	for name, o := range map[string]snapshot.Options{
		"zstd": {}, "zstd-3": {Level: 3},
		"s2": {Codec: snapshot.CodecS2}, "gzip": {Codec: snapshot.CodecGzip}, "lz4": {Codec: snapshot.CodecLZ4}, "none": {Codec: snapshot.CodecNone},
	} {
		state, info, file := small(t, o)
		path := filepath.Join("testdata", name, info.ID+".snap")
		if *update {
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, file, 0o644)); err != nil {
				t.Fatal(err)
			}
		}
		want := read(t, path)
		// s2 has an assembler of its own for each architecture, whose output
		// is not that of the others.
		if !bytes.Equal(file, want) && (name != "s2" || runtime.GOARCH == "amd64") {
			t.Errorf("%s: the same state gives another file", path)
		}
		// Whatever the compressor does in later versions: the old file is read.
		d, _ := place(t, info.ID, want)
		if got, _ := load(t, d, info.ID); !bytes.Equal(got, state) {
			t.Errorf("%s does not hold the state", path)
		}
	}
}

// The file is what the package comment says, as seen by code that was written
// from the comment alone.
func TestLayout(t *testing.T) { eachCodec(t, testLayout) }

func testLayout(t *testing.T, number int, codec snapshot.Codec) {
	state, info, file := small(t, snapshot.Options{Codec: codec})
	p := parse(file)
	wantHeader := bytes.Join([][]byte{[]byte("BLSTSNAP"), {1, 0, byte(number), 0}, u32(512), u64(2), u64(77), u64(5), u32(12), u32(0), []byte("three voters")}, nil)
	if !bytes.Equal(p.header, wantHeader) {
		t.Errorf("header\n%x, want\n%x", p.header, wantHeader)
	}
	var got []byte
	asIs := 0
	for k, b := range p.blocks {
		raw := b[16:]
		switch le.Uint32(b[8:]) {
		case 0:
			var err error
			if raw, err = inflate(codec, raw, int(le.Uint32(b))); err != nil {
				t.Fatalf("block %d: %v", k, err)
			}
		case 1:
			asIs++
		}
		if le.Uint32(b) != uint32(len(raw)) || le.Uint32(b[4:]) != uint32(len(b)-16) {
			t.Errorf("block %d: wrong lengths", k)
		}
		if sum := sha256.Sum256(raw); !bytes.Equal(sum[:], p.index[48*k+16:][:32]) {
			t.Errorf("block %d: wrong hash in the index", k)
		}
		got = append(got, raw...)
	}
	// The last one is so short that only lz4 can shrink it.
	wantAsIs := map[snapshot.Codec]int{snapshot.CodecNone: 5, snapshot.CodecLZ4: 1}
	if codec == snapshot.CodecS2 && runtime.GOARCH != "amd64" {
		wantAsIs[codec] = asIs // as its assembler likes
	}
	if !bytes.Equal(got, state) || len(p.blocks) != 5 || asIs != cmp.Or(wantAsIs[codec], 2) {
		t.Errorf("%d blocks, %d as is, hold other bytes", len(p.blocks), asIs)
	}
	hash := tree(state, 512)
	wantFooter := bytes.Join([][]byte{[]byte("BLSTSEND"), {1, 0, 0, 0}, u32(crc(p.header)), u64(uint64(len(file) - 84 - 5*48)), u64(5), u64(uint64(len(state))), hash[:], u32(0)}, nil)
	if !bytes.Equal(p.footer[:76], wantFooter) {
		t.Errorf("footer\n%x, want\n%x", p.footer[:76], wantFooter)
	}
	if hash != info.ContentHash {
		t.Error("the content hash is another")
	}
	if !bytes.Equal(p.seal(), file) {
		t.Error("the checksums are others")
	}
}

// Files whose checksums are all right and whose fields are not: nothing is
// allocated on their word, nothing wrong is served.
func TestForged(t *testing.T) { eachCodec(t, testForged) }

func testForged(t *testing.T, _ int, codec snapshot.Codec) {
	state, info, file := small(t, snapshot.Options{Codec: codec})
	block := func(encoding uint32, raw int, stored []byte) []byte {
		return bytes.Join([][]byte{u32(uint32(raw)), u32(uint32(len(stored))), u32(encoding), u32(0), stored}, nil)
	}
	// A file without compression is good under any codec's number.
	foreign := messages.ErrCorrupt
	if codec == snapshot.CodecNone {
		foreign = nil
	}
	// replace puts another block 4, the last, into its place, index and all.
	replace := func(p *parsed, b []byte) {
		p.blocks[4] = b
		e := p.index[4*48:]
		copy(e[8:], b[:8])
		le.PutUint64(p.footer[16:], le.Uint64(e)+uint64(len(b)))
	}
	rehash := func(p *parsed, raw uint64) {
		le.PutUint64(p.footer[32:], raw)
		var leaves []byte
		for k := range p.blocks {
			leaves = append(leaves, p.index[48*k+16:][:32]...)
		}
		sum := sha256.Sum256(bytes.Join([][]byte{[]byte("ballast snapshot content 1\x00"), u32(512), u64(raw), leaves}, nil))
		copy(p.footer[40:], sum[:])
	}
	for _, c := range []struct {
		name  string
		forge func(p *parsed)
		want  error
	}{
		{"untouched", func(p *parsed) {}, nil},
		{"hints", func(p *parsed) { p.index = append(p.index, noise(1, 100_000)...) }, nil},
		{"later version", func(p *parsed) { p.header[8], p.footer[8] = 2, 2 }, messages.ErrIncompatible},
		{"later version in the footer", func(p *parsed) { p.footer[8] = 2 }, messages.ErrIncompatible},
		{"another codec", func(p *parsed) { p.header[10] = (p.header[10] + 1) % 5 }, foreign},
		{"another codec yet", func(p *parsed) { p.header[10] = (p.header[10] + 2) % 5 }, foreign},
		{"codec 5", func(p *parsed) { p.header[10] = 5 }, messages.ErrIncompatible},
		{"unknown codec", func(p *parsed) { p.header[10] = 200 }, messages.ErrIncompatible},
		{"unknown flag", func(p *parsed) { p.header[11] = 1 }, messages.ErrIncompatible},
		{"reserved in the header", func(p *parsed) { p.header[44] = 1 }, messages.ErrIncompatible},
		{"reserved in the footer", func(p *parsed) { p.footer[72] = 1 }, messages.ErrIncompatible},
		{"block size 0", func(p *parsed) { copy(p.header[12:], u32(0)) }, messages.ErrCorrupt},
		{"block size 511", func(p *parsed) { copy(p.header[12:], u32(511)) }, messages.ErrCorrupt},
		{"block size 16 Mi + 1", func(p *parsed) { copy(p.header[12:], u32(16<<20+1)) }, messages.ErrCorrupt},
		{"block size 4 Gi - 1", func(p *parsed) { copy(p.header[12:], u32(1<<32-1)) }, messages.ErrCorrupt},
		{"block size 513", func(p *parsed) { copy(p.header[12:], u32(513)) }, messages.ErrCorrupt},
		{"meta length 4 Gi - 1", func(p *parsed) { copy(p.header[40:], u32(1<<32-1)) }, messages.ErrCorrupt},
		{"meta length + 1", func(p *parsed) { copy(p.header[40:], u32(13)) }, messages.ErrCorrupt},
		{"another group", func(p *parsed) { p.header[16]++ }, messages.ErrCorrupt},
		{"another index", func(p *parsed) { p.header[24]++ }, messages.ErrCorrupt},
		{"another term", func(p *parsed) { p.header[32]++ }, messages.ErrCorrupt},
		{"index at 0", func(p *parsed) { copy(p.footer[16:], u64(0)) }, messages.ErrCorrupt},
		{"index beyond the end", func(p *parsed) { copy(p.footer[16:], u64(1<<63)) }, messages.ErrCorrupt},
		{"index at the end", func(p *parsed) { copy(p.footer[16:], u64(1<<64-1)) }, messages.ErrCorrupt},
		{"index one later", func(p *parsed) { p.footer[16]++ }, messages.ErrCorrupt},
		{"0 blocks", func(p *parsed) { copy(p.footer[24:], u64(0)) }, messages.ErrCorrupt},
		{"0 blocks of 0 bytes", func(p *parsed) { copy(p.footer[24:], u64(0)); copy(p.footer[32:], u64(0)) }, messages.ErrCorrupt},
		{"4 blocks", func(p *parsed) { p.footer[24]--; copy(p.footer[32:], u64(2048)) }, messages.ErrCorrupt},
		{"16 Mi blocks", func(p *parsed) { copy(p.footer[24:], u64(1<<24)); copy(p.footer[32:], u64(1<<33)) }, messages.ErrCorrupt},
		{"2^60 blocks", func(p *parsed) { copy(p.footer[24:], u64(1<<60)); copy(p.footer[32:], u64(1<<63)) }, messages.ErrCorrupt},
		{"2^64-1 bytes", func(p *parsed) { copy(p.footer[32:], u64(1<<64-1)) }, messages.ErrCorrupt},
		{"one byte less", func(p *parsed) { p.footer[32]-- }, messages.ErrCorrupt},
		{"another content hash", func(p *parsed) { p.footer[40] ^= 1 }, messages.ErrCorrupt},
		{"another block hash", func(p *parsed) { p.index[16] ^= 1; rehash(p, uint64(len(state))) }, messages.ErrCorrupt},
		{"block offset", func(p *parsed) { p.index[48] ^= 1 }, messages.ErrCorrupt},
		{"block offset 2^63", func(p *parsed) { p.index[48+7] ^= 0x80 }, messages.ErrCorrupt},
		{"raw length 0", func(p *parsed) { copy(p.index[8:], u32(0)) }, messages.ErrCorrupt},
		{"raw length 4 Gi - 1", func(p *parsed) { copy(p.index[8:], u32(1<<32-1)) }, messages.ErrCorrupt},
		{"stored length 0", func(p *parsed) { copy(p.index[12:], u32(0)) }, messages.ErrCorrupt},
		{"stored length 4 Gi - 1", func(p *parsed) { copy(p.index[12:], u32(1<<32-1)) }, messages.ErrCorrupt},
		{"raw length in the block", func(p *parsed) { p.blocks[1][0] ^= 1 }, messages.ErrCorrupt},
		{"stored length in the block", func(p *parsed) { p.blocks[1][4] ^= 1 }, messages.ErrCorrupt},
		{"unknown encoding", func(p *parsed) { p.blocks[1][8] = 2 }, messages.ErrCorrupt},
		{"as is, but is not", func(p *parsed) { p.blocks[1][8] = 1 }, foreign},
		{"by codec, but is not", func(p *parsed) { p.blocks[3][8] = 0 }, messages.ErrCorrupt},
		{"a byte of a frame", func(p *parsed) { p.blocks[1][40] ^= 1 }, messages.ErrCorrupt},
		{"a byte of a block as is", func(p *parsed) { p.blocks[3][40] ^= 1 }, messages.ErrCorrupt},
		{"as is, but too short", func(p *parsed) { replace(p, block(1, 100, make([]byte, 99))) }, messages.ErrCorrupt},
		{"swapped blocks", func(p *parsed) { p.blocks[0], p.blocks[1] = p.blocks[1], p.blocks[0] }, messages.ErrCorrupt},
		{"a gap before the index", func(p *parsed) {
			p.blocks[4] = append(p.blocks[4], 0)
			p.footer[16]++
		}, messages.ErrCorrupt},
	} {
		p := parse(file)
		c.forge(&p)
		d, name := place(t, info.ID, p.seal())
		got, err := readAll(d, info.ID)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		if c.want == nil && !bytes.Equal(got, state) || c.want != nil && got != nil {
			t.Errorf("%s: got %d bytes", c.name, len(got))
		}
		if c.want == messages.ErrCorrupt {
			checkCorrupt(t, err, name, info.Index)
		}
		if c.want == messages.ErrIncompatible {
			_, damaged, err := d.List(info.Group)
			if err != nil || len(damaged) != 1 || !errors.Is(damaged[0], messages.ErrIncompatible) {
				t.Errorf("%s: listed as %v %v", c.name, damaged, err)
			}
			if _, _, err := d.Latest(info.Group); !errors.Is(err, messages.ErrIncompatible) {
				t.Errorf("%s: latest: %v", c.name, err)
			}
			if err := d.Delete(info.ID); !errors.Is(err, messages.ErrIncompatible) {
				t.Errorf("%s: delete: %v", c.name, err)
			}
		}
	}
}

// readAll returns the whole state, or nothing and an error.
func readAll(d *snapshot.Dir, id string) (state []byte, err error) {
	r, err := d.Open(id)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	var b bytes.Buffer
	if _, err := b.ReadFrom(r); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func checkCorrupt(t testing.TB, err error, path string, index uint64) {
	t.Helper()
	var c *messages.CorruptError
	if !errors.As(err, &c) {
		t.Errorf("%v is no CorruptError", err)
		return
	}
	if c.Path != path || c.Index != index || c.Offset < 0 || c.Reason == "" || !strings.HasPrefix(err.Error(), "snapshot: ") {
		t.Errorf("the damage is not told well: %v (%+v)", err, fmt.Sprintf("%+v", *c))
	}
}

// idOf writes the id that info should have.
func idOf(info messages.SnapshotInfo) string {
	return fmt.Sprintf("%016x-%016x-%016x-%012x", info.Group, info.Term, info.Index, info.Created.UnixMilli())
}
