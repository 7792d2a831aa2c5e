package main

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/supervisor"
	"github.com/ballast-raft/ballast/supervisor/metrics"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/urfave/cli/v3"
)

// pages show what a service does while a command runs: /metrics, /healthz and
// /debug/pprof. A nil one shows nothing.
type pages struct {
	server  *http.Server
	address string
	done    chan error
	storage atomic.Pointer[supervisor.Storage]
}

var _ metrics.Source = (*pages)(nil)

func listenFlag() cli.Flag {
	return &cli.StringFlag{Name: "listen", Usage: "serve /metrics, /healthz, /debug/pprof/ on `ADDRESS` meanwhile (:9090 is 127.0.0.1:9090)"}
}

// listen serves the pages that the command line asks for, if any.
func (a *app) listen(c *cli.Command) (*pages, error) {
	address := c.String("listen")
	if address == "" {
		return nil, nil
	}
	p, err := listen(address)
	if err != nil {
		return nil, badUsage(c, "%v", err)
	}
	a.console.say("http://%s/metrics, /healthz, /debug/pprof/", p.address)
	return p, nil
}

// listen serves pages on an address. One without a host is served on the loopback
// interface alone: profiles are nobody else's business unless he is told so.
func listen(address string) (*pages, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("-listen %s: %w", address, err)
	}
	if host == "" {
		host = "127.0.0.1"
	}
	l, err := net.Listen("tcp", net.JoinHostPort(host, port))
	if err != nil {
		return nil, fmt.Errorf("-listen %s: %w", address, err)
	}
	p := &pages{address: l.Addr().String(), done: make(chan error, 1)}
	registry := prometheus.NewRegistry()
	registry.MustRegister(metrics.NewCollector(p), collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	// No limit on writing: a profile takes as long as was asked for.
	p.server = &http.Server{Handler: metrics.Handler(p, registry), ReadHeaderTimeout: 10 * time.Second}
	go func() { p.done <- p.server.Serve(l) }()
	return p, nil
}

// show tells whose pages they are from now on.
func (p *pages) show(s *service) {
	if p != nil {
		p.storage.Store(s.Storage)
	}
}

// Statistics implements metrics.Source.
func (p *pages) Statistics() supervisor.Statistics {
	if s := p.storage.Load(); s != nil {
		return s.Statistics()
	}
	return supervisor.Statistics{Actors: []messages.ActorStatus{{Name: "supervisor", State: messages.StateOpening}}}
}

// close ends the server, and what it is about to send.
func (p *pages) close() error {
	if p == nil {
		return nil
	}
	err := p.server.Close()
	if served := <-p.done; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}
