//go:build unix

package worker

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"
)

const (
	// startPause is the wait after a child that did not start; it doubles up to startPauseMax.
	startPause    = 100 * time.Millisecond
	startPauseMax = 30 * time.Second
	// trial is how long a child has to live before it counts as started well. After trialAfter starts in a row that were
	// none it gets no task before: what ends it by itself is not to look like the task's doing.
	trial      = time.Second
	trialAfter = 2
	// startTries is how many starts in a row may fail before that is an error for the log.
	startTries = 3
	// closeGrace is how long the end of the pool waits for children that end by themselves, and then for the killed ones.
	closeGrace = 3 * time.Second
	// sampleMemory is how often the children's memory is looked at.
	sampleMemory = 100 * time.Millisecond
)

// processes is the pool that runs each job in a child process: the same program, one task at a time. It has as many
// children as the worker has slots, or, where only some tasks are isolated, as many as were needed at once. A slot takes
// one for a run and gives it back.
type processes struct {
	w      *Worker
	forker *forker

	life    context.Context // of the children: done when they are to be killed
	end     context.CancelFunc
	running sync.WaitGroup // starts, children, and who watches them
	places  chan struct{}  // bounds the starts at one time
	closing chan struct{}

	mu       sync.Mutex
	onDemand bool // children are started when they are needed
	want     int  // children, if not on demand
	counted  int  // children there are, those being started included, those on their way out not
	starting int
	idle     []*child
	all      map[*child]struct{} // that live
	waiting  []chan *child       // slots, in order, each of capacity 1
	closed   bool
	failures int       // starts that failed in a row, those included whose child ended soon
	notAgain time.Time // before this
}

func newProcesses(w *Worker, onDemand bool) *processes {
	p := &processes{w: w, onDemand: onDemand, all: map[*child]struct{}{}, closing: make(chan struct{}),
		places: make(chan struct{}, max(2, runtime.NumCPU()))}
	p.life, p.end = context.WithCancel(context.Background())
	return p
}

// open implements pool.
func (p *processes) open() {
	p.forker = newForker()
	if p.w.config.MemoryLimitPerChild > 0 {
		p.running.Go(p.watchMemory)
	}
}

// resize sets how many children there are to be, unless they are started on demand. Those too many end when they are idle.
func (p *processes) resize(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.want = n
	p.fill()
	for p.surplus() && len(p.idle) > 0 {
		c := p.idle[0]
		p.idle = p.idle[1:]
		p.dismiss(c)
	}
}

// surplus tells that there are more children than wanted. The caller holds mu.
func (p *processes) surplus() bool { return !p.onDemand && p.counted > p.want }

// fill starts the children that are missing. The caller holds mu.
func (p *processes) fill() {
	missing := p.want - p.counted
	if p.onDemand {
		missing = len(p.waiting) - p.starting
	}
	for ; missing > 0 && !p.closed; missing-- {
		p.counted++
		p.starting++
		p.running.Go(p.start)
	}
}

// start starts one child, and tries until it is there or the pool ends.
func (p *processes) start() {
	for {
		select {
		case p.places <- struct{}{}:
		case <-p.closing:
			return
		}
		if !p.awaitStart() {
			<-p.places
			return
		}
		c, err := p.launch()
		<-p.places
		if err == nil {
			err = p.try(c)
		}
		if p.started(c, err) {
			return
		}
	}
}

// awaitStart waits out the pause after starts that failed. False: the pool ends.
func (p *processes) awaitStart() bool {
	p.mu.Lock()
	pause := time.Until(p.notAgain)
	p.mu.Unlock()
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-p.closing:
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.closed
}

// try sees whether a new child lives for a while, if those before it did not.
func (p *processes) try(c *child) error {
	p.mu.Lock()
	well := p.failures < trialAfter
	p.mu.Unlock()
	if well {
		return nil
	}
	timer := time.NewTimer(trial)
	defer timer.Stop()
	select {
	case <-c.exited:
		return fmt.Errorf("it ended soon after its start (%s)", c.exit())
	case <-timer.C:
	case <-p.closing:
	}
	return nil
}

// started takes a new child in, or notes that there is none. True: it need not be tried again.
func (p *processes) started(c *child, err error) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil {
		p.starting--
		p.all[c] = struct{}{}
		c.counted = true
		p.put(c)
		return true
	}
	if p.closed {
		return true
	}
	pause := p.failedStart()
	log := p.w.log.Warn
	if p.failures >= startTries {
		log = p.w.log.Error
	}
	log("a child process did not start, trying again", "error", err, "failed", p.failures, "pause", pause)
	return false
}

// failedStart counts a start that failed, and tells the pause before the next. The caller holds mu.
func (p *processes) failedStart() time.Duration {
	p.failures++
	pause := min(startPause<<min(p.failures-1, 16), startPauseMax)
	p.notAgain = time.Now().Add(pause)
	return pause
}

// mourn notes that a child has ended by itself, before it is uncounted. One that has not lived for long, or not finished
// any run, is a start that failed: another is likely to fare no better. The caller holds mu.
func (p *processes) mourn(c *child) {
	if p.closed || !c.counted || c.meant() {
		return
	}
	switch {
	case !c.finished || time.Since(c.born) < trial:
		pause := p.failedStart()
		p.w.log.Error("a child process ended soon after its start", "pid", c.cmd.Process.Pid, "exit", c.exitNow(),
			"lived", time.Since(c.born), "failed", p.failures, "pause", pause)
	case !c.inUse:
		p.w.log.Warn("a child process ended while it was idle", "pid", c.cmd.Process.Pid, "exit", c.exitNow())
	}
}

// put gives a child that is in nobody's use to the slot that waits longest, or keeps it for the next; it lets go one that
// is not needed any more. The caller holds mu.
func (p *processes) put(c *child) {
	c.inUse = false
	switch {
	case c.dead:
		c.pipe.close()
	case c.broken: // it is being killed
		p.mourn(c)
		p.uncount(c)
		p.fill()
	case p.closed || p.surplus() || c.spent:
		p.dismiss(c)
		p.fill()
	case len(p.waiting) > 0:
		next := p.waiting[0]
		p.waiting = p.waiting[1:]
		c.inUse = true
		next <- c
	default:
		p.idle = append(p.idle, c)
	}
}

// dismiss lets a child go. The caller holds mu.
func (p *processes) dismiss(c *child) {
	p.uncount(c)
	if !c.dead {
		c.retire()
	}
}

func (p *processes) uncount(c *child) {
	if c.counted {
		c.counted = false
		p.counted--
	}
}

// gone is told when a child has ended, whoever wanted it.
func (p *processes) gone(c *child) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c.dead = true
	delete(p.all, c)
	p.mourn(c)
	p.uncount(c)
	p.idle = slices.DeleteFunc(p.idle, func(other *child) bool { return other == c })
	if !c.inUse {
		c.pipe.close()
	}
	p.fill()
}

// take waits for a child; nil when the pool ends or stop is closed before.
func (p *processes) take(stop <-chan struct{}) *child {
	p.mu.Lock()
	if n := len(p.idle); n > 0 {
		c := p.idle[n-1]
		p.idle = p.idle[:n-1]
		c.inUse = true
		p.mu.Unlock()
		return c
	}
	turn := make(chan *child, 1)
	p.waiting = append(p.waiting, turn)
	p.fill()
	p.mu.Unlock()
	select {
	case c := <-turn:
		return c
	case <-p.closing:
	case <-stop:
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting = slices.DeleteFunc(p.waiting, func(other chan *child) bool { return other == turn })
	select {
	case c := <-turn: // it came at the same moment
		p.put(c)
	default:
	}
	return nil
}

// reserve implements pool: a job that has no child yet has not begun, and no time limit runs.
func (p *processes) reserve(ctx context.Context, j *job) bool {
	c := p.take(ctx.Done())
	p.mu.Lock()
	defer p.mu.Unlock()
	j.child = c
	return c != nil
}

// release implements pool. A stop does not wait for a run that was given up: its child is given back when it ends.
func (p *processes) release(j *job) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := j.child
	j.child = nil
	switch {
	case c == nil:
	case c.busy:
		c.left = true
	default:
		p.put(c)
	}
}

// run implements pool.
func (p *processes) run(ctx context.Context, e *execution) completion {
	for {
		c := p.enter(e)
		if c == nil {
			return lost("Worker exited prematurely: no child process is left.")
		}
		done, err := p.follow(ctx, e, c)
		p.leave(c)
		if err == nil {
			return done
		}
		select {
		case <-e.givenUp(): // which is why, or the slot may be gone
			return lost(c.lostText(""))
		default:
		}
		// It has died since it was idle. Nothing of the task has begun, so another child may have it.
		p.w.log.Warn("a child process was gone when a task came for it", "pid", c.cmd.Process.Pid, "error", err)
		p.release(e.job)
		if !p.reserve(ctx, e.job) {
			return lost("Worker exited prematurely: no child process is left.")
		}
	}
}

// enter begins to use the child of a job; nil: it has been given back.
func (p *processes) enter(e *execution) *child {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e.child != nil {
		e.child.busy = true
	}
	return e.child
}

// leave ends the use of a child by a run.
func (p *processes) leave(c *child) {
	spent := c.hasSpent()
	p.mu.Lock()
	defer p.mu.Unlock()
	c.busy, c.spent = false, spent
	if !c.broken {
		c.finished = true
		if !c.proven && (spent || time.Since(c.born) >= trial) {
			c.proven, p.failures = true, 0
		}
	}
	if c.left {
		c.left = false
		p.put(c)
	}
}

// follow hands a task to a child and sees the run to its end: by the child's word, or by its death. With an error the
// child is lost, and the task has not begun.
func (p *processes) follow(ctx context.Context, e *execution, c *child) (completion, error) {
	run, begun, ended := c.number(), make(chan struct{}), make(chan struct{})
	defer close(ended)
	// Before anything is written: a child that does not read is killed as well.
	defer context.AfterFunc(ctx, func() { c.stop(context.Cause(ctx), e, run, begun, ended) })()
	if err := c.begin(ctx, e, run); err != nil {
		c.broken = true
		c.over()
		c.kill(0, "")
		return completion{}, err
	}
	close(begun)
	done, err := c.converse(e, run)
	fate := c.over()
	if err == nil {
		return done, nil
	}
	c.broken = true
	c.kill(0, "") // if it lives it talks nonsense
	text := c.lostText(fate)
	select {
	case <-e.givenUp(): // as was wanted
	default:
		p.w.log.Error("a child process was lost", "pid", c.cmd.Process.Pid, "task", e.request.Task, "task_id", e.request.ID,
			"error", text)
	}
	done = lost(text)
	done.lost = fate == "" // what used too much memory would do so again
	return done, nil
}

// stop tells the child that the run's context is done, and kills it when the run is given up.
func (c *child) stop(cause error, e *execution, run uint64, begun, ended <-chan struct{}) {
	told := make(chan struct{})
	go func() { // it may not read
		defer close(told)
		select {
		case <-begun: // before that it knows of no such run
			c.cancel(run, cause)
		case <-ended:
		}
	}()
	select {
	case <-e.givenUp():
		c.kill(run, "")
	case <-ended:
	}
	<-told
}

// hasSpent tells that a child has had its share of tasks or of memory.
func (c *child) hasSpent() bool {
	config := &c.pool.w.config
	return config.MaxTasksPerChild > 0 && c.served >= config.MaxTasksPerChild ||
		config.MaxMemoryPerChild > 0 && c.peak > config.MaxMemoryPerChild ||
		config.MemoryLimitPerChild > 0 && residentMemory(c.cmd.Process.Pid) > config.MemoryLimitPerChild
}

// watchMemory kills children that have more memory resident than they may.
func (p *processes) watchMemory() {
	tick := time.NewTicker(sampleMemory)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-p.closing:
			return
		}
		for _, c := range p.children() {
			p.checkMemory(c)
		}
	}
}

// checkMemory kills a child that has too much memory resident: in the run in which it was seen, or while it is idle.
func (p *processes) checkMemory(c *child) {
	run, limit := c.present(), p.w.config.MemoryLimitPerChild
	used := residentMemory(c.cmd.Process.Pid)
	switch {
	case used <= limit:
	case run != 0:
		c.kill(run, fmt.Sprintf("Worker exited prematurely: memory limit of %d bytes exceeded: %d bytes resident.", limit, used))
	default:
		p.mu.Lock()
		defer p.mu.Unlock()
		if i := slices.Index(p.idle, c); i >= 0 {
			p.idle = slices.Delete(p.idle, i, i+1)
			if !c.finished { // it is as large from its start on, and so would the next be
				pause := p.failedStart()
				p.w.log.Error("a child process has more memory resident than it may before its first task", "pid", c.cmd.Process.Pid,
					"bytes", used, "limit", limit, "failed", p.failures, "pause", pause)
			}
			p.dismiss(c)
			p.fill()
		}
	}
}

func (p *processes) children() []*child {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]*child, 0, len(p.all))
	for c := range p.all {
		out = append(out, c)
	}
	return out
}

// pids implements pool.
func (p *processes) pids() []int {
	var out []int
	for _, c := range p.children() {
		out = append(out, c.cmd.Process.Pid)
	}
	slices.Sort(out)
	return out
}

// close implements pool: idle children end by themselves, those that still run a task are killed.
func (p *processes) close() {
	p.mu.Lock()
	if p.closed || p.forker == nil {
		p.mu.Unlock()
		return
	}
	p.closed = true
	close(p.closing)
	for _, c := range p.idle {
		p.dismiss(c)
	}
	p.idle = nil
	var busy []*child
	for c := range p.all {
		if c.inUse {
			busy = append(busy, c)
		}
	}
	p.mu.Unlock()
	for _, c := range busy {
		c.kill(0, "")
	}
	ended := make(chan struct{})
	go func() {
		p.running.Wait()
		close(ended)
	}()
	for range 2 {
		select {
		case <-ended:
			p.forker.close()
			p.end()
			return
		case <-time.After(closeGrace):
			p.end() // kills
		}
	}
	p.w.log.Error("child processes cannot be ended", "pids", p.pids())
}

// hasProcesses: this system has the process pool.
const hasProcesses = true

var errForkerClosed = errors.New("the pool is closed")
