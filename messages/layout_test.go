package messages_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
)

const module = "github.com/ballast-raft/ballast"

// rank orders the rooms of the house. A package may import those of a lower
// rank, and what lies below its own top-level folder.
var rank = map[string]int{"messages": 0, "log": 1, "snapshot": 1, "kv": 1, "actors": 2, "supervisor": 3, "sim": 4}

// banned names imports that a room must not have, and why.
var banned = map[string]map[string]string{
	"":         {"log": "the standard log package is never used; use log/slog"},
	"log":      {"github.com/anthdm/hollywood": "the stores can be used without actors"},
	"snapshot": {"github.com/anthdm/hollywood": "the stores can be used without actors"},
	"kv":       {"github.com/anthdm/hollywood": "the stores can be used without actors"},
}

func TestImportsPointOneWay(t *testing.T) {
	root := filepath.Join("..")
	seen := map[string]bool{}
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if d.IsDir() {
			if strings.HasPrefix(d.Name(), ".") && rel != "." || d.Name() == "testdata" {
				return filepath.SkipDir
			}
			if _, err := os.Stat(filepath.Join(file, "go.mod")); err == nil && rel != "." {
				return filepath.SkipDir // a module of its own: the project cannot import it
			}
			return nil
		}
		if path.Ext(rel) != ".go" {
			return nil
		}
		room, _, nested := strings.Cut(rel, "/")
		if !nested {
			t.Errorf("%s: there is no Go file at the top level", rel)
			return nil
		}
		if _, ok := rank[room]; !ok {
			t.Errorf("%s: %s is not one of the seven rooms", rel, room)
			return nil
		}
		seen[room] = true
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		test := strings.HasSuffix(rel, "_test.go")
		for _, spec := range parsed.Imports {
			checkImport(t, rel, room, strings.Trim(spec.Path.Value, `"`), test)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for room := range rank {
		if !seen[room] {
			t.Errorf("room %s has no Go file", room)
		}
	}
}

func checkImport(t *testing.T, file, room, imported string, test bool) {
	for _, scope := range []string{"", room} {
		for prefix, why := range banned[scope] {
			if imported == prefix || prefix != "log" && strings.HasPrefix(imported, prefix+"/") {
				t.Errorf("%s imports %s: %s", file, imported, why)
			}
		}
	}
	// The vocabulary itself is pure; the durable steps below it need the lock.
	if path.Dir(file) == "messages" && !test && strings.Contains(imported, ".") {
		t.Errorf("%s imports %s: messages imports only the standard library", file, imported)
	}
	rest, ours := strings.CutPrefix(imported, module+"/")
	if !ours {
		return
	}
	to, _, _ := strings.Cut(rest, "/")
	switch {
	case to == room:
	case to == "sim" && test: // tests of any room may be simulated
	case rank[to] >= rank[room]:
		t.Errorf("%s imports %s: imports only point from supervisor to actors to the stores to messages", file, imported)
	}
}

func TestTopLevel(t *testing.T) {
	allowed := map[string]bool{"go.mod": true, "go.sum": true, "README.md": true, "LICENSE": true}
	for room := range rank {
		allowed[room] = true
	}
	entries, err := os.ReadDir("..")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") && !allowed[e.Name()] {
			t.Errorf("%s does not belong at the top level", e.Name())
		}
	}
}
