package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"go/parser"
	"go/token"
	"strings"
	"unicode/utf8"
)

// document is what is stored of a file. The content comes last, so that an
// index on one of the other fields need not look through it.
type document struct {
	// Path is the slash path below the root. The key holds it byte for byte;
	// here, bytes that are not UTF-8 are replaced, as JSON has it.
	Path string `json:"path"`
	// Package is the package clause of a Go file, or empty.
	Package string `json:"package"`
	Size    int    `json:"size"`
	Lines   int    `json:"lines"`
	// Encoding of Content: empty for the text itself, or "base64" for content
	// that is not UTF-8.
	Encoding string `json:"encoding,omitempty"`
	Content  string `json:"content"`
}

const base64Encoding = "base64"

// encodeDocument returns the document of a file as JSON.
func encodeDocument(path string, content []byte) ([]byte, error) {
	d := document{Path: path, Package: packageName(path, content), Size: len(content), Lines: countLines(content)}
	if utf8.Valid(content) {
		d.Content = string(content)
	} else {
		d.Encoding, d.Content = base64Encoding, base64.StdEncoding.EncodeToString(content)
	}
	var b bytes.Buffer
	b.Grow(len(d.Content) + len(d.Content)/8 + 256)
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(d); err != nil {
		return nil, fmt.Errorf("%s: encode: %w", path, err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// decodeDocument returns a document and the content of its file.
func decodeDocument(value []byte) (d document, content []byte, err error) {
	if err := json.Unmarshal(value, &d); err != nil {
		return d, nil, fmt.Errorf("not the document of a file: %w", err)
	}
	switch d.Encoding {
	case "":
		content = []byte(d.Content)
	case base64Encoding:
		if content, err = base64.StdEncoding.DecodeString(d.Content); err != nil {
			return d, nil, fmt.Errorf("the content is not base64: %w", err)
		}
	default:
		return d, nil, fmt.Errorf("the content has an unknown encoding %q", d.Encoding)
	}
	if len(content) != d.Size {
		return d, nil, fmt.Errorf("the content has %d bytes, the document says %d", len(content), d.Size)
	}
	return d, content, nil
}

// packageName reads no further than the package clause.
func packageName(path string, content []byte) string {
	if !strings.HasSuffix(path, ".go") {
		return ""
	}
	f, err := parser.ParseFile(token.NewFileSet(), path, content, parser.PackageClauseOnly)
	if err != nil || f.Name == nil {
		return ""
	}
	return f.Name.Name
}

// countLines counts a last line without a newline as well.
func countLines(content []byte) int {
	n := bytes.Count(content, []byte("\n"))
	if len(content) > 0 && content[len(content)-1] != '\n' {
		n++
	}
	return n
}
