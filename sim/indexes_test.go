package sim_test

import (
	"errors"
	"fmt"

	"github.com/ballast-raft/ballast/kv"
	"github.com/ballast-raft/ballast/messages"
	"github.com/ballast-raft/ballast/sim"
)

// indexFuncs are those of the service. No two pairs have an equal key.
var indexFuncs = map[string]kv.IndexFunc{
	"value": func(_, value []byte) [][]byte { return [][]byte{value} },
	"key":   func(key, _ []byte) [][]byte { return [][]byte{key} },
}

// indexOperation creates or drops an index. Those over keys are unique, so that
// entries have to wait for them.
func indexOperation(rand func(n int) int) messages.Operation {
	name := []string{"value", "key"}[rand(2)]
	if rand(2) == 0 {
		return messages.DropIndexOperation(name)
	}
	return messages.CreateIndexOperation(messages.IndexDefinition{Name: name, Func: name, Unique: name == "key"})
}

// checkIndexes waits until every index is built, and finds each pair in it.
func (l *life) checkIndexes(data map[string]string) {
	list, err := sim.Ask[messages.IndexesListed](l.w, l.storage.KV, messages.ListIndexes{})
	for _, x := range list.Indexes {
		var q messages.IndexQueried
		for tries := 0; ; tries++ {
			q, err = sim.Ask[messages.IndexQueried](l.w, l.storage.KV, messages.QueryIndex{Name: x.Name})
			if !errors.Is(err, messages.ErrNotReady) || tries == 10_000 {
				break
			}
		}
		if err != nil {
			break
		}
		last := ""
		for _, p := range q.Pairs {
			at := fmt.Sprintf("%s\x00%s", indexFuncs[x.Func](p.Key, p.Value)[0], p.Key)
			if at <= last || data[string(p.Key)] != string(p.Value) {
				err = fmt.Errorf("%q = %q", p.Key, p.Value)
			}
			last = at
		}
		if len(q.Pairs) != len(data) {
			err = fmt.Errorf("%d pairs of %d", len(q.Pairs), len(data))
		}
		l.h.tally.Indexes++
	}
	if err != nil {
		l.w.Fail("life %d: indexes %+v: %v", l.n, list.Indexes, err)
	}
}
