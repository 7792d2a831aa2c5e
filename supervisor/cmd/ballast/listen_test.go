package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/ballast-raft/ballast/supervisor"
)

func page(url string) (code int, body string, err error) {
	response, err := http.Get(url)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = response.Body.Close() }() // it was read
	b, err := io.ReadAll(response.Body)
	return response.StatusCode, string(b), err
}

func mustPage(t *testing.T, p *pages, path string, code int, want ...string) {
	t.Helper()
	got, body, err := page("http://" + p.address + path)
	if err != nil || got != code {
		t.Errorf("%s: %d, %v: %s", path, got, err, body)
	}
	for _, w := range want {
		if !strings.Contains(body, w) {
			t.Errorf("%s does not tell of %q", path, w)
		}
	}
}

func TestPages(t *testing.T) {
	p, err := listen(":0")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(p.address, "127.0.0.1:") {
		t.Errorf("without a host it listens on %s", p.address)
	}
	mustPage(t, p, "/healthz", http.StatusServiceUnavailable, "opening")
	s, err := openService(context.Background(), supervisor.Config{Dir: t.TempDir()}, nil)
	if err != nil {
		t.Fatal(err)
	}
	p.show(s)
	for began := time.Now(); len(s.Health()) > 0 && time.Since(began) < time.Minute; runtime.Gosched() {
	} // the data's actor may be about to begin to serve
	mustPage(t, p, "/healthz", http.StatusOK, `"ok":true`)
	mustPage(t, p, "/metrics", http.StatusOK, "ballast_log_appends_total 0", "go_goroutines")
	mustPage(t, p, "/debug/pprof/heap?debug=1", http.StatusOK, "heap profile")
	if err := s.close(); err != nil {
		t.Error(err)
	}
	mustPage(t, p, "/healthz", http.StatusServiceUnavailable, "stopped")
	if _, err := listen(p.address); err == nil {
		t.Error("an address was taken twice")
	}
	if err := p.close(); err != nil {
		t.Error(err)
	}
	if _, _, err := page("http://" + p.address + "/healthz"); err == nil {
		t.Error("it is served after the end")
	}
}

// visitor is a standard error that visits the address it is told.
type visitor struct {
	strings.Builder
	visited string
}

var addressText = regexp.MustCompile(`http://[^/]+/`)

func (v *visitor) Write(p []byte) (int, error) {
	if url := addressText.Find(p); url != nil && v.visited == "" {
		code, body, err := page(string(url) + "metrics")
		v.visited = fmt.Sprint(code, err, strings.Contains(body, "ballast_healthy"))
	}
	return v.Builder.Write(p)
}

func TestDemoListens(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	root := t.TempDir()
	writeFile(t, filepath.Join(root, "a"), "content")
	var v visitor
	code := run(t.Context(), []string{"ballast", "demo", "-from", root, "-listen", "127.0.0.1:0"}, strings.NewReader(""), io.Discard, &v)
	if code != exitOK || v.visited != "200 <nil> true" {
		t.Errorf("exit code %d, visited %q\n%s", code, v.visited, v.String())
	}
	if o := ballast(t, "demo", "-from", root, "-listen", "nowhere"); o.code != exitUsage {
		t.Errorf("an address that is none: exit code %d", o.code)
	}
}
