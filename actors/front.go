package actors

// front decides when a batch of changes leaves, for a Behavior that commits in
// groups, without a timer. While one batch is on its way the next one grows. When
// none is, it leaves as soon as it has grown to what was under way when the last
// one was answered, or has stopped growing: measured, a front that takes just what
// is queued settles at half a batch for N waiting clients, one that waits for the
// queue to stop growing gets nearly N.
type front struct {
	host *Host
	// size is how many changes the next batch has, and whether one is on its way.
	size func() (n int, busy bool)
	// leave sends the batch on its way.
	leave func()

	// expected is how many changes were under way when the last batch was
	// answered: clients that wait for one answer before they send the next
	// command will make the next batch as long.
	expected int
	looking  bool // a look at what is coming is under way
	seen     int  // size at the last look
}

const (
	// frontStep is how many commands are worth a look. A larger one leaves the
	// processor to the clients for longer, a smaller one stages earlier.
	frontStep = 32
	// frontPatience is how often the actor yields in vain before it takes it that
	// no more is coming: 13 us where nobody else runs, against the 250 us of a
	// sync that the stragglers would otherwise wait for.
	frontPatience = 32
)

// gather has a batch leave, at once if it is full or as long as expected, or
// starts a look at whether more is coming. The caller knows that there is one and
// that none is on its way.
func (f *front) gather(full bool) {
	n, _ := f.size()
	if full || n >= f.expected {
		f.leave()
		return
	}
	if !f.looking {
		f.looking, f.seen = true, n
		f.look()
	}
}

// look goes once around the inbox, after it has let the senders run that have
// just been answered: whatever they sent is in the batch when it comes back. If
// that made it grow, more may be on its way.
func (f *front) look() {
	f.host.Await(max(1, min(f.expected-f.seen, frontStep)), frontPatience)
	f.host.Yield(func() {
		n, busy := f.size()
		if !busy && n > f.seen {
			f.seen = n
			f.look()
			return
		}
		f.looking = false
		if !busy { // otherwise gather has found that it is time
			f.leave()
		}
	})
}

// answered says that a batch of n was answered when later more were waiting.
func (f *front) answered(n, later int) { f.expected = n + later }
