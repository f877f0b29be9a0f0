package interop

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/protocol"
)

// TestChordParts has the parts of one chord counted by both sides in turn, each with its own code; who counts the last one
// completes it, and the other never does.
func TestChordParts(t *testing.T) {
	t.Parallel()
	ForEachCrossing(t, []Stack{RedisStack}, func(t *testing.T, c Crossing) {
		s := c.Open(t)
		s.Queue = "bodies"
		driver := c.StartDriver(t, s)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		opened, err := backends.Open(ctx, s.Backend, backends.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = opened.Close() }()
		counter, broker := opened.(backends.ChordCounter), redisClient(t, s.Broker)

		body := json.RawMessage(`{"task": "body", "args": [], "kwargs": {}, "options": {}, "subtask_type": null, "immutable": false}`)
		bodies := int64(0)
		sent := func(more int64, what string) {
			t.Helper()
			if bodies += more; broker.LLen(ctx, s.Queue).Val() != bodies {
				t.Fatalf("%s: Python has sent %d bodies, want %d", what, broker.LLen(ctx, s.Queue).Val(), bodies)
			}
		}
		byPython := func(group string, place int) {
			t.Helper()
			a := driver.Do(t, Command{Op: "count", ID: fmt.Sprint(group, place), Args: []any{place, group, place}, Signature: body})
			if !a.OK {
				t.Fatal(a.Error)
			}
		}
		byGo := func(group string, place int) backends.ChordState {
			t.Helper()
			states, err := counter.CountParts(ctx, []backends.ChordPart{{Group: group, Index: &place,
				Meta: &protocol.ResultMeta{TaskID: fmt.Sprint(group, place), Status: protocol.Success, Result: int64(place)}}})
			if err != nil {
				t.Fatal(err)
			}
			return states[0]
		}
		for _, group := range []string{"last by Go", "last by Python"} {
			if err := counter.StartChords(ctx, []backends.ChordSize{{Group: group, Size: 4}}); err != nil {
				t.Fatal(err)
			}
			byPython(group, 2)
			for _, place := range []int{1, 2, 0} { // 2 has run on both sides
				if state := byGo(group, place); state.Complete {
					t.Errorf("%s: complete by %d: %+v", group, place, state)
				}
			}
			byPython(group, 1)
			sent(0, group)
		}
		want := backends.ChordState{Complete: true, Results: []any{int64(0), int64(1), int64(2), int64(3)}}
		if d := cmp.Diff(want, byGo("last by Go", 3)); d != "" {
			t.Error(d)
		}
		if err := counter.EndChords(ctx, []backends.ChordEnd{{Group: "last by Go"}}); err != nil {
			t.Fatal(err)
		}
		byPython("last by Go", 3) // again
		sent(0, "last by Go")

		byPython("last by Python", 3)
		sent(1, "last by Python")
		if state := byGo("last by Python", 3); state.Complete {
			t.Errorf("complete on both sides: %+v", state)
		}
	})
}
