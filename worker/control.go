package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gelery/gelery/internal/fnmatch"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/serialization"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/transport"
)

const (
	// controlBacklog is how many commands, and how many replies, may wait for the broker. More are dropped: who asked has
	// given up by then.
	controlBacklog = 1000
	// controlTimeout bounds a command that waits for the broker, replyTimeout the sending of a reply.
	controlTimeout = 30 * time.Second
	replyTimeout   = 5 * time.Second
	// clockAllowance is how far the clock of who sends a command may be behind, so that none is taken for expired at once.
	clockAllowance = time.Minute
	// What could not be subscribed to is tried again after a pause, which doubles from the first to the last.
	firstSubscribePause = time.Second
	lastSubscribePause  = time.Minute
	// longestPattern bounds the pattern of a request, in bytes.
	longestPattern = 1024
)

// control is remote control: kombu's pidbox, by which `celery control`, `celery inspect` and Flower talk to workers. It
// hears commands that are broadcast, carries out those meant for this worker, and replies where a reply is wanted. Five
// actors, so that no command waits for the broker, for long lists or for the program's code but those that must: one hears and
// carries out what answers at once, three carry out the rest in their order, one replies.
type control struct {
	w          *Worker
	serializer serialization.Serializer
	heard      transport.Subscription // what listen begins with; nil: none yet
	slow       chan *protocol.PidboxRequest
	listing    chan *protocol.PidboxRequest
	programs   chan *protocol.PidboxRequest // the program's own commands
	replies    chan answer
	expired    atomic.Int64 // commands that came, or whose turn came, too late
}

// answer is a reply on its way.
type answer struct {
	to    *protocol.PidboxRequest
	value any
}

// newControl subscribes, so that whoever is told that the worker is ready can talk to it. It does not insist: what fails is
// tried again by listen.
func newControl(ctx context.Context, w *Worker) *control {
	s, ok := serialization.Lookup(w.client.Config().Serializer) // task.Config has checked it
	if !ok {
		s = serialization.JSON
	}
	c := &control{w: w, serializer: s, replies: make(chan answer, controlBacklog)}
	for _, waiting := range []*chan *protocol.PidboxRequest{&c.slow, &c.listing, &c.programs} {
		*waiting = make(chan *protocol.PidboxRequest, controlBacklog)
	}
	ctx, cancel := context.WithTimeout(ctx, replyTimeout)
	defer cancel()
	c.heard, _ = c.subscribe(ctx)
	return c
}

func (c *control) subscribe(ctx context.Context) (transport.Subscription, error) {
	s, err := c.w.client.Transport().Subscribe(ctx, protocol.PidboxExchange, "")
	if err != nil && !errors.Is(err, context.Canceled) {
		c.w.log.Warn("remote control is not heard, trying again", "error", err)
	}
	return s, err
}

// listen hears commands until ctx is done.
func (c *control) listen(ctx context.Context) {
	var again resubscribing
	for ctx.Err() == nil {
		if c.heard == nil {
			var err error
			if c.heard, err = c.subscribe(ctx); err != nil {
				c.heard = nil
				again.wait(ctx)
				continue
			}
		}
		again.began()
		for {
			d, err := c.heard.Receive(ctx)
			if err != nil {
				break
			}
			again.heard()
			c.hear(ctx, &d)
		}
		_ = c.heard.Close()
		c.heard = nil
		again.ended(ctx)
	}
}

// hear takes in one message. What is no request is left out: it came by broadcast, and nobody waits for an answer.
func (c *control) hear(ctx context.Context, d *transport.Delivery) {
	var r *protocol.PidboxRequest
	err := d.Err
	if err == nil {
		r, err = protocol.DecodePidbox(d.Message, c.w.accept)
	}
	if err != nil {
		c.w.log.Error("remote control: a message is no command", "error", err)
		return
	}
	c.w.hearClock(int64(r.Clock))
	mine, err := addressed(r, c.w.config.Hostname)
	if err != nil {
		c.w.log.Error("remote control: the command is for nobody", "method", r.Method, "error", err)
	}
	if !mine {
		return
	}
	if c.late(r) {
		return
	}
	var waiting chan *protocol.PidboxRequest
	switch command := c.w.commands[r.Method]; {
	case command.program:
		waiting = c.programs
	case command.lists:
		waiting = c.listing
	case command.slow:
		waiting = c.slow
	default:
		c.carryOut(ctx, r, c.reply)
		return
	}
	select {
	case waiting <- r:
	default:
		c.w.log.Error("remote control: too many commands wait, one is dropped", "method", r.Method)
	}
}

// late tells whether a request has expired, by more than clocks differ. Whoever sent it has been told that it had no answer, and
// may have sent another.
func (c *control) late(r *protocol.PidboxRequest) bool {
	if r.Expires.IsZero() || !time.Now().After(r.Expires.Add(clockAllowance)) {
		return false
	}
	c.w.log.Info("remote control: a command has expired and is not carried out", "method", r.Method, "expired", r.Expires, "so_far", c.expired.Add(1))
	return true
}

// maxClock bounds the logical clock, so that no number from outside makes it turn over.
const maxClock = 1 << 52

// hearClock moves the worker's logical clock past that of a message.
func (w *Worker) hearClock(at int64) {
	for {
		now := w.clock.Load()
		if w.clock.CompareAndSwap(now, max(now, min(at, maxClock))+1) {
			return
		}
	}
}

// addressed tells whether a request is meant for a node: it names it, or has a pattern that it matches, or neither.
func addressed(r *protocol.PidboxRequest, node string) (bool, error) {
	if len(r.Destination) > 0 {
		return slices.Contains(r.Destination, node), nil
	}
	if r.Pattern == "" || r.Matcher == "" {
		return true, nil
	}
	if len(r.Pattern) > longestPattern {
		return false, fmt.Errorf("its pattern has more than %d bytes", longestPattern)
	}
	var re *regexp.Regexp
	var err error
	switch r.Matcher {
	case "glob":
		re, err = fnmatch.Compile(r.Pattern)
	case "pcre": // Python's re.match: at the beginning
		re, err = regexp.Compile(`\A(?:` + r.Pattern + `)`)
	default:
		err = fmt.Errorf("matcher %q is unknown; known are glob and pcre", r.Matcher)
	}
	return err == nil && re.MatchString(node), err
}

// obey carries out commands that take their time, one after the other, until ctx is done.
func (c *control) obey(ctx context.Context, waiting <-chan *protocol.PidboxRequest, reply func(answer)) {
	for {
		select {
		case r := <-waiting:
			if c.late(r) {
				continue
			}
			limited, cancel := context.WithTimeout(ctx, controlTimeout)
			c.carryOut(limited, r, reply)
			cancel()
		case <-ctx.Done():
			return
		}
	}
}

// carryOut runs a command and hands on what it answers, if that is wanted.
func (c *control) carryOut(ctx context.Context, r *protocol.PidboxRequest, reply func(answer)) {
	value, err := c.w.command(ctx, r)
	if err != nil {
		c.w.log.Error("pidbox command error: "+err.Error(), "method", r.Method)
		value = nok(task.ExceptionOf(err).String())
	}
	if c.w.log.Enabled(ctx, slog.LevelDebug) {
		c.w.log.Debug("pidbox received method "+r.Method, "reply_to", r.ReplyTo.RoutingKey, "ticket", r.Ticket)
	}
	if !r.WantsReply() {
		return
	}
	if r.ReplyTo.Exchange != protocol.PidboxReplyExchange {
		c.w.log.Error("remote control: replies go to "+protocol.PidboxReplyExchange+" only", "method", r.Method, "reply_to", r.ReplyTo.Exchange)
		return
	}
	reply(answer{r, value})
}

// reply has an answer sent when those before it are.
func (c *control) reply(a answer) {
	select {
	case c.replies <- a:
	default:
		c.w.log.Warn("remote control: too many replies wait for the broker, one is dropped", "method", a.to.Method)
	}
}

// talk carries out commands until ctx is done, and sends all that they answer, the reply to shutdown included.
func (c *control) talk(ctx context.Context) {
	var commanding sync.WaitGroup
	last, cancel := context.WithCancel(context.WithoutCancel(ctx)) // what waits when ctx is done is sent, if it can be soon
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(time.Second, cancel) })()
	commanding.Go(func() { c.listen(ctx) })
	commanding.Go(func() { c.obey(ctx, c.slow, c.reply) })
	commanding.Go(func() { c.obey(ctx, c.programs, c.reply) })
	commanding.Go(func() { c.obey(ctx, c.listing, func(a answer) { c.send(last, a) }) }) // long lists: one at a time, and no other waits behind them
	go func() {
		commanding.Wait()
		close(c.replies)
	}()
	for a := range c.replies {
		c.send(last, a)
	}
}

// send replies to one request, unless nobody waits any more.
func (c *control) send(ctx context.Context, a answer) {
	if !a.to.Expires.IsZero() && time.Now().After(a.to.Expires.Add(clockAllowance)) {
		return
	}
	m, err := protocol.NewPidboxReply(c.w.config.Hostname, a.value, a.to.Ticket, int(c.w.clock.Add(1)), c.serializer)
	if err != nil {
		c.w.log.Error("remote control: no reply", "method", a.to.Method, "error", err)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, replyTimeout)
	defer cancel()
	to := transport.Publication{Message: m, Exchange: a.to.ReplyTo.Exchange, RoutingKey: a.to.ReplyTo.RoutingKey, Optional: true}
	if err := c.w.client.Transport().Publish(ctx, []transport.Publication{to}); err != nil {
		c.w.log.Warn("remote control: a reply was not sent", "method", a.to.Method, "error", err)
	}
}
