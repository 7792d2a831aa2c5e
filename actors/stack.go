package actors

// The engine runs an actor that was idle on a new goroutine, whose stack of 2 KiB
// grows as calls go deeper, and each time what is on it is walked and copied: 9 %
// of the processor time of one client that waits for durable puts. deepen grows it
// once, while next to nothing is on it.
//
//go:noinline
func deepen() {
	var room [stackBytes]byte
	occupy(&room)
}

// stackBytes makes the stack 16 KiB, which a change of application data needs.
const stackBytes = 8 << 10

//go:noinline
func occupy(*[stackBytes]byte) {}
