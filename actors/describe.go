package actors

import (
	"fmt"
	"strings"

	"github.com/ballast-raft/ballast/messages"
)

// Describe names a message that is delivered to one of this package's actors,
// the internal ones included, in a few words that are the same in every run of
// a simulation.
func Describe(msg any) string {
	switch m := msg.(type) {
	case *Request:
		return fmt.Sprintf("%s #%d", typeName(m.Command), m.Command.RequestTag())
	case messages.Reply:
		return fmt.Sprintf("%s #%d err=%v", typeName(m), m.ReplyTag(), m.Failure())
	case Notice:
		return fmt.Sprintf("Notice %s %s", m.Name, m.State)
	case job:
		return fmt.Sprintf("job of incarnation %d", m.incarnation)
	case jobDone:
		return fmt.Sprintf("job done, incarnation %d", m.incarnation)
	case look:
		return fmt.Sprintf("look of incarnation %d", m.incarnation)
	case timeout:
		return fmt.Sprintf("timer of incarnation %d", m.incarnation)
	}
	return typeName(msg)
}

func typeName(v any) string {
	name := fmt.Sprintf("%T", v)
	return name[strings.LastIndexByte(name, '.')+1:]
}
