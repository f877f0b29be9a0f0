package worker

import (
	"context"
	"time"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/serialization"
	"github.com/gelery/gelery/transport"
)

const (
	// gossipKey is what the events of workers are heard with.
	gossipKey = "worker.#"
	// maxPeers bounds the workers that one keeps in mind, which anybody may make up.
	maxPeers = 10_000
	// usualFreq is the interval of a worker that tells none or an odd one, longestFreq bounds what is believed.
	usualFreq, longestFreq = 60 * time.Second, time.Hour
	// lookForLost is how often it is looked for workers that are not heard any more.
	lookForLost = 5 * time.Second
)

// gossip hears what other workers tell of themselves: it keeps the logical clock up, knows who is there, and takes part in
// elections. One actor, to which the election command adds.
type gossip struct {
	w         *Worker
	elections elections
	peers     map[string]time.Time // by node name: when it is taken for lost. The actor's alone
}

func newGossip(w *Worker) *gossip {
	return &gossip{w: w, peers: map[string]time.Time{}, elections: elections{w: w, all: map[string]*election{}}}
}

// run hears events until ctx is done. What cannot be subscribed to is tried again.
func (g *gossip) run(ctx context.Context) {
	var again resubscribing
	for ctx.Err() == nil {
		limited, cancel := context.WithTimeout(ctx, controlTimeout)
		heard, err := g.w.client.Transport().Subscribe(limited, g.w.events.exchange, gossipKey)
		cancel()
		if err != nil {
			if ctx.Err() == nil {
				g.w.log.Warn("other workers are not heard, trying again", "error", err)
			}
			again.wait(ctx)
			continue
		}
		again.began()
		g.listen(ctx, heard, &again)
		if err := heard.Close(); err != nil {
			g.w.log.Debug("gossip was not closed", "error", err)
		}
		again.ended(ctx)
	}
}

// resubscribing is the pause before it is subscribed again. It doubles until a subscription was of use: a message came, or it
// lasted. After that one there is none.
type resubscribing struct {
	pause time.Duration
	since time.Time // the subscription began
	some  bool      // a message has come by it
}

func (r *resubscribing) began() { r.since, r.some = time.Now(), false }

// heard notes that a message has come.
func (r *resubscribing) heard() { r.some = true }

// ended waits after a subscription that nothing came of.
func (r *resubscribing) ended(ctx context.Context) {
	if r.some || time.Since(r.since) >= lastSubscribePause {
		r.pause = 0
		return
	}
	r.wait(ctx)
}

// wait waits before the next attempt.
func (r *resubscribing) wait(ctx context.Context) {
	r.pause = min(max(2*r.pause, firstSubscribePause), lastSubscribePause)
	debounce(ctx, r.pause)
}

// listen hears one subscription to its end.
func (g *gossip) listen(ctx context.Context, heard transport.Subscription, again *resubscribing) {
	look := time.Now().Add(lookForLost)
	for {
		until := look
		if due := g.elections.due(); !due.IsZero() && due.Before(until) {
			until = due
		}
		limited, cancel := context.WithDeadline(ctx, until)
		d, err := heard.Receive(limited)
		late := limited.Err() != nil
		cancel()
		switch {
		case err == nil:
			again.heard()
			g.hear(&d)
		case ctx.Err() != nil || !late:
			return
		}
		now := time.Now()
		if !now.Before(look) {
			g.lose(now)
			look = now.Add(lookForLost)
		}
		g.elections.close(ctx, now)
	}
}

// hear takes in one message. What cannot be read is left out: it is for everybody, and nobody waits for an answer.
func (g *gossip) hear(d *transport.Delivery) {
	err := d.Err
	var events []protocol.Event
	if err == nil {
		events, err = protocol.DecodeEvents(d.Message, serialization.Accept{})
	}
	if err != nil {
		g.w.log.Debug("gossip: a message is no event", "error", err)
	}
	now := time.Now()
	for i := range events {
		switch e := &events[i]; e.Type {
		case protocol.WorkerElect:
			g.elections.candidate(e)
		case protocol.WorkerElectAck:
			g.elections.acknowledged(e, g.alive(now), now)
		default:
			g.meet(e, now)
		}
	}
}

// meet notes that another worker is there, or says that it goes.
func (g *gossip) meet(e *protocol.Event, now time.Time) {
	node := e.Hostname
	if e.Group() != "worker" || node == "" || node == g.w.config.Hostname {
		return
	}
	g.w.hearClock(e.Clock)
	lost, known := g.peers[node]
	if e.Type == protocol.WorkerOffline {
		delete(g.peers, node)
		if known {
			g.w.log.Debug(node + " left")
		}
		return
	}
	if !known && len(g.peers) >= maxPeers {
		return
	}
	if !known || lost.Before(now) {
		g.w.log.Debug(node + " joined the party")
	}
	freq := usualFreq
	switch f := e.Field("freq").(type) {
	case int64:
		freq = time.Duration(min(max(f, 0), int64(longestFreq/time.Second))) * time.Second
	case float64:
		if f > 0 {
			freq = time.Duration(min(f, longestFreq.Seconds()) * float64(time.Second))
		}
	}
	g.peers[node] = now.Add(2 * freq)
}

// lose lets go of those that are not heard any more.
func (g *gossip) lose(now time.Time) {
	for node, lost := range g.peers {
		if lost.Before(now) {
			g.w.log.Info("missed heartbeat from " + node)
			delete(g.peers, node)
		}
	}
}

// alive is how many others are there.
func (g *gossip) alive(now time.Time) (n int) {
	for _, lost := range g.peers {
		if !lost.Before(now) {
			n++
		}
	}
	return n
}
