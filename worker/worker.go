package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/protocol/serialization"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/transport"
)

// Worker receives and runs tasks. It runs once: New, Run, gone.
type Worker struct {
	config  Config
	client  *task.Client
	backend backends.Backend // nil: results are thrown away
	tasks   map[string]*registered
	hooks   []Hooks
	accept  serialization.Accept
	sources consuming
	log     *slog.Logger

	consumer  transport.Consumer
	window    *window   // how many deliveries are held
	ready     chan *job // admitted and due, waiting for a slot; closed when receiving has ended
	parking   *parking  // admitted and not due
	unsized   *unsized  // chords
	strangers *parking  // of tasks nobody knows here, until they are handed back
	delaying  *delaying // admitted, not due, and on their way back to the broker
	rooms     *rooms    // admitted and due, but held back by a limit
	pool      pool
	slots     *slots
	active    *active
	reserved  reserved // waiting for a slot
	runners   runners
	outcomes  chan *outcome
	revoked   *revoked
	pulses    pulses
	health    *health      // nil: nobody asks
	clock     atomic.Int64 // Lamport's, of events and remote control
	commands  map[string]controlCommand
	events    *events
	metrics   *metrics // nil: nobody asks
	gossip    *gossip  // nil: disabled

	autoscaler *autoscaler // nil: the number of slots is fixed

	followers sync.WaitGroup // of what follows tasks and is not sent yet
	late      atomic.Int64   // how many outcomes wait for that and are not counted in the window

	runs      atomic.Bool
	since     time.Time       // it runs; set before anybody can ask
	consuming chan struct{}   // closed when the worker has begun to receive
	stopping  context.Context // done when a stop has begun
	hurry     atomic.Int32    // how often Terminate was called
	hurried   chan struct{}   // capacity 1: it was called
	unbegun   unbegun
	terminate context.CancelCauseFunc
	running   context.Context // of the tasks; done only on a cold stop
	applying  context.Context // of storing and settling; done when a cold stop gives up on them
	abandon   context.CancelFunc
	halt      context.CancelCauseFunc // begins a warm stop, of which the cause is told

	succeeded, failed, quarantined atomic.Int64
	abandoned                      atomic.Int64 // runs that were given up and go on nevertheless
}

// New makes a worker for the client's broker and backend, with the tasks of the mux, which it closes.
func New(client *task.Client, mux *Mux, c Config) (*Worker, error) {
	if client.Transport() == nil {
		return nil, task.ErrNoBroker
	}
	c, err := c.withDefaults(client.Config())
	if err != nil {
		return nil, err
	}
	if err := c.checkBackend(keeps(client.Backend())); err != nil {
		return nil, err
	}
	accept, err := serialization.NewAccept(client.Config().AcceptContent...)
	if err != nil {
		return nil, fmt.Errorf("worker config: AcceptContent: %w", err)
	}
	queues, err := c.queues(client)
	if err != nil {
		return nil, err
	}
	tasks, hooks := mux.freeze()
	held, worthwhile := c.window(max(c.Concurrency, c.Autoscale.Max))
	w := &Worker{
		config: c, client: client, backend: client.Backend(), tasks: register(tasks), hooks: hooks,
		accept: accept, log: c.Logger,
		window:    newWindow(held, worthwhile),
		ready:     make(chan *job, held),
		outcomes:  make(chan *outcome, held),
		consuming: make(chan struct{}),
		hurried:   make(chan struct{}, 1),
	}
	w.addBuiltins()
	if err := w.setCommands(mux.ControlCommands()); err != nil {
		return nil, err
	}
	w.strangers, w.unsized = newParking(w), newUnsized(w)
	w.sources.queues = queues
	w.parking, w.slots, w.autoscaler = newParking(w), newSlots(w, c.Concurrency), newAutoscaler(w)
	if w.rooms, err = newRooms(w); err != nil {
		return nil, err
	}
	w.active, w.revoked, w.events, w.metrics = newActive(), newRevoked(w), newEvents(w), newMetrics(w)
	if !c.DisableGossip {
		w.gossip = newGossip(w)
	}
	if w.pool, err = newPool(w); err != nil {
		return nil, err
	}
	if err := w.loadState(); err != nil {
		return nil, err
	}
	w.stopping, w.halt = context.WithCancelCause(context.Background())
	w.running, w.terminate = context.WithCancelCause(context.Background())
	w.applying, w.abandon = context.WithCancel(context.Background())
	return w, nil
}

// Run receives and runs tasks until ctx is done. Then it stops warm: it receives nothing more, waits for the running
// tasks, stores and acknowledges what they return, and gives everything it has not begun back to the front of its
// queue. It returns nil after a warm stop, ErrTerminated after a cold one, ErrAbandoned if it stopped by itself, and an
// error if it could not begin. A worker runs once.
//
// In a child of a process pool (see IsChild) it serves the parent instead, whatever ctx says, until the parent does not
// need the child any more.
func (w *Worker) Run(ctx context.Context) error {
	if w.runs.Swap(true) {
		return errors.New("the worker has run already")
	}
	defer w.metrics.begin()()
	if IsChild() {
		return w.serve()
	}
	w.since = time.Now()
	defer w.terminate(nil)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(w.stopping, cancel)()
	w.tellInit()
	defer w.tellStopped()
	attend, err := w.attend(ctx)
	if err != nil {
		return err
	}
	if err := w.consume(ctx); err != nil {
		return errors.Join(err, attend.close())
	}
	if w.consumer == nil { // stopped before it began
		return attend.close()
	}
	attend.begin()
	w.tellReady()

	var receiving, reporting, returning sync.WaitGroup
	w.rooms.open()
	w.rooms.start = func(run func(context.Context)) { receiving.Go(func() { run(ctx) }) } // by who is among them
	receiving.Go(func() { w.receive(ctx) })
	receiving.Go(func() { w.parking.run(ctx) })
	receiving.Go(func() { w.unsized.run(ctx) })
	receiving.Go(func() { w.strangers.run(ctx) })
	receiving.Go(func() { w.delaying.run(ctx) })
	receiving.Go(func() { w.revoked.dropWaiting(ctx) })
	if w.autoscaler != nil {
		receiving.Go(func() { w.autoscaler.run(ctx) })
	}
	w.slots.start(ctx)
	batches := make(chan []*outcome, 1)
	reporting.Go(func() { w.store(batches) })
	reporting.Go(func() { w.settle(batches) })

	finished := make(chan struct{})
	returning.Go(func() {
		receiving.Wait()
		close(w.ready)
		w.giveBack()
	})
	go func() {
		receiving.Wait()
		w.slots.wait()
		close(w.outcomes)
		reporting.Wait()
		close(finished)
	}()
	<-ctx.Done()
	w.log.Info("stopping", "worker", w.config.Hostname)
	w.halt(nil) // whoever has asked for it
	w.tellStopping()
	w.awaitStop(finished)
	w.abandon()
	w.awaitForsaken(&reporting)
	w.pool.close()
	w.rooms.close()
	returning.Wait()
	return w.end(attend)
}

// consume begins to receive. Without an error and without a consumer, it was stopped before.
func (w *Worker) consume(ctx context.Context) error {
	consumer, err := w.client.Transport().Consume(ctx, transport.ConsumeOptions{Queues: w.consumed(), Prefetch: w.window.bound()})
	if err != nil {
		if ctx.Err() != nil {
			return nil //nolint:nilerr // stopped before it began
		}
		return fmt.Errorf("worker %s: consume: %w", w.config.Hostname, err)
	}
	w.consumer = consumer
	w.pool.open()
	w.delaying = newDelaying(w)
	w.log.Info("consuming", "worker", w.config.Hostname, "queues", w.config.Queues, "concurrency", w.config.Concurrency)
	w.log.Info(w.config.Hostname + " ready.") // Celery's words, which scripts wait for
	close(w.consuming)
	return nil
}

// end closes what a stop leaves open.
func (w *Worker) end(attend *attendance) error {
	if err := attend.close(); err != nil {
		w.log.Error("remote control or health was not closed", "error", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopGrace)
	defer cancel()
	if err := w.consumer.Close(ctx); err != nil {
		w.log.Error("held messages could not be given back; they return when their lease ends", "error", err)
	}
	w.log.Info("stopped", "worker", w.config.Hostname, "succeeded", w.succeeded.Load(), "failed", w.failed.Load(),
		"quarantined", w.quarantined.Load(), "abandoned", w.abandoned.Load())
	switch {
	case errors.Is(context.Cause(w.stopping), ErrAbandoned):
		return ErrAbandoned
	case w.terminated():
		return ErrTerminated
	}
	return nil
}

// Consuming is closed when the worker has begun to receive.
func (w *Worker) Consuming() <-chan struct{} { return w.consuming }

// Config is the configuration with its defaults filled in.
func (w *Worker) Config() Config { return w.config }

// Hostname is the worker's node name.
func (w *Worker) Hostname() string { return w.config.Hostname }
