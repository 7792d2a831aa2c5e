package actors

import (
	"errors"
	"fmt"
	"time"

	"github.com/ballast-raft/ballast/messages"
)

// RestartPolicy says how an actor that fails is brought back.
//
// A failure is a panic, or an error of the store after which only reopening
// helps. After the first failure the actor is reopened after MinBackoff; each
// further failure doubles the wait, up to MaxBackoff, and each wait is shortened
// by a random part of up to a fifth so that actors that failed together do not
// return together. Failures older than Window are forgotten, and with them the
// doubling. When more than MaxFailures lie within Window, or when reopening
// meets an error that trying again cannot mend (damage, an incompatible format),
// the actor is unavailable: what waits is answered with ErrUnavailable, new
// commands are refused at once, and it is tried again every Retry until it
// opens. Nothing ever ends the program.
type RestartPolicy struct {
	// Window in which failures are counted. Default 1 minute. A larger one is
	// less patient with an actor that fails now and then.
	Window time.Duration
	// MaxFailures within Window before the actor is unavailable. Default 10.
	MaxFailures int
	// MinBackoff is the first wait, MaxBackoff the longest. Defaults 10 ms and
	// 2 s.
	MinBackoff, MaxBackoff time.Duration
	// Retry is how often an unavailable actor is tried. Default 10 s.
	Retry time.Duration
}

// Validate reports every field that makes no sense.
func (p RestartPolicy) Validate() error {
	var errs []error
	for _, f := range []struct {
		name  string
		value time.Duration
	}{{"Window", p.Window}, {"MinBackoff", p.MinBackoff}, {"MaxBackoff", p.MaxBackoff}, {"Retry", p.Retry}} {
		if f.value < 0 {
			errs = append(errs, fmt.Errorf("RestartPolicy.%s is negative (%v): %w", f.name, f.value, messages.ErrInvalid))
		}
	}
	if p.MaxFailures < 0 {
		errs = append(errs, fmt.Errorf("RestartPolicy.MaxFailures is negative (%d): %w", p.MaxFailures, messages.ErrInvalid))
	}
	if q := p.withDefaults(); q.MaxBackoff < q.MinBackoff {
		errs = append(errs, fmt.Errorf("RestartPolicy.MaxBackoff (%v) is below MinBackoff (%v): %w", q.MaxBackoff, q.MinBackoff, messages.ErrInvalid))
	}
	return errors.Join(errs...)
}

func (p RestartPolicy) withDefaults() RestartPolicy {
	set := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	set(&p.Window, time.Minute)
	set(&p.MinBackoff, 10*time.Millisecond)
	set(&p.MaxBackoff, 2*time.Second)
	set(&p.Retry, 10*time.Second)
	if p.MaxFailures == 0 {
		p.MaxFailures = 10
	}
	return p
}

// RetryInterval is Retry, or its default.
func (p RestartPolicy) RetryInterval() time.Duration { return p.withDefaults().Retry }

// failures is the sliding window of an actor's failures.
type failures struct{ at []time.Time }

// add counts one more and returns how many lie within the window now.
func (f *failures) add(now time.Time, window time.Duration) int {
	keep := f.at[:0]
	for _, t := range f.at {
		if now.Sub(t) < window {
			keep = append(keep, t)
		}
	}
	f.at = append(keep, now)
	return len(f.at)
}

// backoff is the wait after the n-th failure within the window.
func (p RestartPolicy) backoff(n int, chance float64) time.Duration {
	d := p.MinBackoff
	for i := 1; i < n && d < p.MaxBackoff; i++ {
		d *= 2
	}
	d = min(d, p.MaxBackoff)
	return d - time.Duration(chance*0.2*float64(d))
}

// permanent reports whether opening again cannot help.
func permanent(err error) bool {
	return errors.Is(err, messages.ErrCorrupt) || errors.Is(err, messages.ErrIncompatible) || errors.Is(err, messages.ErrInvalid)
}
