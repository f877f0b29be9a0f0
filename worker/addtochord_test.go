package worker

import (
	"context"
	"reflect"
	"sync/atomic"
	"testing"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/transport"
)

// TestAddToChordAgain: a part of a chord adds two parts that are alike and a chord, and dies at any of the sends, before or after the
// broker has the message. It runs again, and the chord has each part once.
func TestAddToChordAgain(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		dies int32 // at which send
		sent bool  // the broker has it
	}{
		{"nowhere", 0, false},
		{"before the first", 1, false},
		{"after the first", 1, true},
		{"before the second", 2, false},
		{"before the chord", 3, false},
		{"after the chord", 3, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newCanvasSite(t)
			var adding atomic.Bool // the part has begun
			var sends, runs atomic.Int32
			config := s.client.Config()
			config.Middleware = append(config.Middleware, func(next task.Publish) task.Publish {
				return func(ctx context.Context, calls []*task.Publishing) error {
					if !adding.Load() || sends.Add(1) != c.dies {
						return next(ctx, calls)
					}
					if c.sent {
						if err := next(ctx, calls); err != nil {
							return err
						}
					}
					return &transport.PublishError{InDoubt: true, Err: context.Canceled} // as a process that is killed knows it
				}
			})
			config.Broker = "memory://" + protocol.NewID()
			config.Backend = config.Broker
			client, err := task.Dial(t.Context(), config)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = client.Close(context.Background()) })
			s.client = client
			one := add.S(addArgs{0, 1})
			s.mux.Func("adds", func(ctx context.Context) (int, error) {
				runs.Add(1)
				adding.Store(true)
				for _, sig := range []task.Signature{one, one, task.Chord(task.Group(one, one), sum.Rest())} {
					if _, err := task.AddToChord(ctx, sig); err != nil {
						return 0, task.Reject(err, true)
					}
				}
				return 10, nil
			})
			s.start(Config{Concurrency: 4})
			r := s.apply(task.Chord(task.Group(task.S("adds"), add.S(addArgs{50, 50})), sum.Rest()).Then(add.Rest(1000)))
			if got, err := r.Get(s.context()); err != nil || !reflect.DeepEqual(got, int64(1114)) {
				t.Errorf("the chord's end is %v, %v; expected 1114: each part once", got, err)
			}
			if n, want := runs.Load(), min(c.dies, 1)+1; n != want {
				t.Errorf("the part ran %d times, expected %d", n, want)
			}
		})
	}
}
