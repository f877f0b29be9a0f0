package backends

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gelery/gelery/protocol"
)

// asked is a store that remembers when and for what it was asked.
type asked struct {
	mu    sync.Mutex
	texts map[string]string
	calls []time.Time
	sizes []int
	err   error
	gate  func() // called while a read is under way
}

func (a *asked) read(_ context.Context, ids []string, found func(id, text string)) error {
	a.mu.Lock()
	a.calls, a.sizes = append(a.calls, time.Now()), append(a.sizes, len(ids))
	texts := map[string]string{}
	for _, id := range ids {
		if text, ok := a.texts[id]; ok {
			texts[id] = text
		}
	}
	err, gate := a.err, a.gate
	a.mu.Unlock()
	if gate != nil {
		gate()
	}
	for id, text := range texts {
		found(id, text)
	}
	return err
}

// heard is when it was asked so far, and for how many at once.
func (a *asked) heard() (calls []time.Time, sizes []int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.calls), slices.Clone(a.sizes)
}

func (a *asked) store(id string, s protocol.State) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.texts == nil {
		a.texts = map[string]string{}
	}
	a.texts[id] = fmt.Sprintf(`{"status": %q, "result": {}}`, s)
}

func jsonCodec(t *testing.T) Codec {
	t.Helper()
	codec, err := NewCodec(Options{})
	if err != nil {
		t.Fatal(err)
	}
	return codec
}

func TestPollerAsksInGrowingIntervals(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := &asked{}
		p := NewPoller(a.read)
		defer p.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for range p.Watch(ctx, jsonCodec(t), "a") { // PENDING, and the end of the context
		}
		calls, _ := a.heard()
		first, last := calls[0], calls[len(calls)-1]
		if n := len(calls); n < 110 || n > 130 {
			t.Errorf("asked %d times in a minute", n)
		}
		if d := calls[1].Sub(first); d > 2*pollMin {
			t.Errorf("asked again after %v", d)
		}
		if d := last.Sub(calls[len(calls)-2]); d > pollMax+pollGrid {
			t.Errorf("asked at last after %v", d)
		}
		synctest.Wait() // nobody asks when nobody watches
		before, _ := a.heard()
		<-time.After(time.Hour)
		if after, _ := a.heard(); len(after) != len(before) {
			t.Error("it asks on for nobody")
		}
	})
}

func TestPollerAsksForAllWatchesAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const n = 1200
		a := &asked{}
		p := NewPoller(a.read)
		defer p.Close()
		codec := jsonCodec(t)
		var all sync.WaitGroup
		for i := range n {
			all.Go(func() {
				for m, err := range p.Watch(t.Context(), codec, fmt.Sprint(i), "shared") {
					if err != nil || m.Status != protocol.Pending && m.Status != protocol.Success {
						t.Error(m, err)
					}
				}
			})
		}
		<-time.After(10 * time.Second) // the pauses have grown to their longest
		before, _ := a.heard()
		<-time.After(10 * time.Second)
		after, sizes := a.heard()
		calls, most := len(after)-len(before), 0
		for _, size := range sizes {
			most = max(most, size)
		}
		if most > pollBatch {
			t.Errorf("asked for %d at once", most)
		}
		if calls < 50 || calls > 80 { // some twenty rounds of three calls
			t.Errorf("asked %d times in ten seconds", calls)
		}
		for i := range n {
			a.store(fmt.Sprint(i), protocol.Success)
		}
		a.store("shared", protocol.Success)
		all.Wait()
	})
}

// What was read before a watch began says nothing to it.
func TestPollerTellsNothingOld(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reading, proceed := make(chan struct{}), make(chan struct{})
		var once sync.Once
		a := &asked{gate: func() {
			once.Do(func() {
				close(reading)
				<-proceed
			})
		}}
		p := NewPoller(a.read)
		defer p.Close()
		codec := jsonCodec(t)
		go func() {
			for range p.Watch(t.Context(), codec, "a") {
			}
		}()
		<-reading // a read that has found nothing
		a.store("a", protocol.Success)
		states := make(chan protocol.State, 10)
		go func() {
			defer close(states)
			for m := range p.Watch(t.Context(), codec, "a") {
				states <- m.Status
			}
		}()
		synctest.Wait()
		close(proceed)
		var got []protocol.State
		for s := range states {
			got = append(got, s)
		}
		if len(got) != 1 || got[0] != protocol.Success {
			t.Errorf("heard %v of what was stored before", got)
		}
	})
}

func TestPollerFailsItsWatches(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	a := &asked{err: broken}
	p := NewPoller(a.read)
	for range 2 { // it asks again for the next one
		for _, err := range p.Watch(t.Context(), jsonCodec(t), "a") {
			if !errors.Is(err, broken) {
				t.Errorf("got %v", err)
			}
		}
	}
	p.Close()
	p.Close()
	for _, err := range p.Watch(t.Context(), jsonCodec(t), "a") {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("when closed: %v", err)
		}
	}
}
