package messages

// Command is what every command implements, so that an actor's mailbox can
// refuse any of them with the right reply.
type Command interface {
	// RequestTag returns the Tag that the reply will carry.
	RequestTag() uint64
	// WithTag returns a copy with another Tag.
	WithTag(tag uint64) Command
	// Refuse returns the reply that answers this command with err.
	Refuse(err error) Reply
	// Bytes is how much the command holds in memory beyond a constant, for
	// flow control.
	Bytes() int
}

// Reply is what every reply implements.
type Reply interface {
	// ReplyTag is the Tag of the command that is answered.
	ReplyTag() uint64
	// Failure is the reply's Err.
	Failure() error
}
