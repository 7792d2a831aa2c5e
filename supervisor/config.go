package supervisor

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/ballast-raft/ballast/actors"
	"github.com/ballast-raft/ballast/kv"
	raftlog "github.com/ballast-raft/ballast/log"
	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/snapshot"
)

// Config describes a service. Only Dir is required; the zero value of every
// other field is a safe choice.
type Config struct {
	// Dir holds everything: LOCK, log/, snapshots/ and kv/. It is made if it
	// does not exist. One process may have it open.
	Dir string
	// Name begins the pids: Name/log, Name/snapshot, Name/kv and
	// Name/supervisor. Default "ballast". Services in one engine need
	// different names.
	Name string

	// Log, Snapshot and KV configure the stores.
	Log      raftlog.Options
	Snapshot snapshot.Options
	KV       kv.Options

	// Scrub paces the verification of the log's closed segments.
	Scrub actors.ScrubPolicy
	// Compaction paces the compaction of the application data's file.
	Compaction actors.CompactionPolicy

	// Retention is applied after every CreateSnapshot. Default: keep 2, so
	// that there is one to fall back on. The log is compacted only to the
	// oldest one that stays: keeping more costs that much more log, and that
	// they are read again each time. Damaged ones do not count towards Keep.
	Retention messages.Retention
	// Limits bound what each actor has accepted and not answered yet.
	Limits actors.Limits
	// Restart says how a failed actor is brought back.
	Restart actors.RestartPolicy
	// StallAfter is how long a call to the disk may take before it is reported; see
	// actors.Config. Default 2 seconds.
	StallAfter time.Duration
	// Logger gets a line for every event, in addition to the one that hollywood
	// writes to slog.Default for each that somebody could subscribe to. Nil: none.
	Logger *slog.Logger
	// Env is replaced by simulations.
	Env actors.Env
}

// Validate reports every field that makes no sense, joined. Each error matches
// messages.ErrInvalid and names its field.
func (c Config) Validate() error {
	var errs []error
	if c.Dir == "" {
		errs = append(errs, fmt.Errorf("config: Dir is empty: %w", messages.ErrInvalid))
	}
	if strings.Contains(c.Name, "/") {
		errs = append(errs, fmt.Errorf("config: Name %q has a slash: %w", c.Name, messages.ErrInvalid))
	}
	for _, f := range []struct {
		name  string
		value int64
	}{{"Keep", int64(c.Retention.Keep)}, {"MaxAge", int64(c.Retention.MaxAge)}, {"MaxBytes", c.Retention.MaxBytes}} {
		if f.value < 0 {
			errs = append(errs, fmt.Errorf("config: Retention.%s is negative (%d): %w", f.name, f.value, messages.ErrInvalid))
		}
	}
	if c.StallAfter < 0 {
		errs = append(errs, fmt.Errorf("config: StallAfter is negative (%v): %w", c.StallAfter, messages.ErrInvalid))
	}
	if c.Retention.DryRun {
		errs = append(errs, fmt.Errorf("config: Retention.DryRun would let snapshots and log grow for ever: %w", messages.ErrInvalid))
	}
	for _, part := range []struct {
		name string
		err  error
	}{
		{"Log", c.Log.Validate()}, {"Snapshot", c.Snapshot.Validate()}, {"KV", c.KV.Validate()},
		{"Scrub", c.Scrub.Validate()}, {"Compaction", c.Compaction.Validate()},
		{"Limits", c.Limits.Validate()}, {"Restart", c.Restart.Validate()},
	} {
		if part.err != nil {
			errs = append(errs, fmt.Errorf("config: %s: %w", part.name, part.err))
		}
	}
	return errors.Join(errs...)
}

func (c Config) withDefaults() Config {
	if c.Name == "" {
		c.Name = "ballast"
	}
	if c.Retention == (messages.Retention{}) {
		c.Retention.Keep = 2
	}
	return c
}
