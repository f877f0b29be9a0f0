package worker

import "slices"

// takeWaiting takes the jobs out that wait for their time and that the function chooses, and counts them in the window again.
// It is called without a lock held.
func (w *Worker) takeWaiting(choose func(*job) bool) []*job {
	chosen := map[*job]bool{}
	for _, j := range append(w.parking.waiting(), w.rooms.waiting()...) {
		if choose(j) {
			chosen[j] = true
		}
	}
	if len(chosen) == 0 {
		return nil
	}
	isChosen := func(j *job) bool { return chosen[j] }
	return append(w.parking.takeIf(isChosen), w.rooms.takeIf(isChosen)...) // some may have gone on from the one to the other
}

// waiting are the parked jobs.
func (p *parking) waiting() []*job {
	p.mu.Lock()
	defer p.mu.Unlock()
	jobs := make([]*job, len(p.jobs))
	for i, x := range p.jobs {
		jobs[i] = x.job
	}
	return jobs
}

// waiting are the jobs in all rooms.
func (rs *rooms) waiting() (jobs []*job) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	for _, r := range rs.rooms {
		jobs = append(jobs, r.jobs...)
	}
	return jobs
}

// takeIf takes the parked jobs out that the function chooses, which must take no lock.
func (p *parking) takeIf(choose func(*job) bool) (jobs []*job) {
	counted := 0
	p.mu.Lock()
	p.jobs = slices.DeleteFunc(p.jobs, func(x *parked) bool {
		if !choose(x.job) {
			return false
		}
		jobs = append(jobs, x.job)
		if x.outside {
			p.outside--
			counted++
		}
		return true
	})
	p.jobs.init()
	p.mu.Unlock()
	p.w.window.take(counted)
	return jobs
}

// takeIf takes the jobs out of all rooms that the function chooses, which must take no lock.
func (rs *rooms) takeIf(choose func(*job) bool) (jobs []*job) {
	rs.mu.Lock()
	for _, r := range rs.rooms {
		n := len(jobs)
		r.jobs = slices.DeleteFunc(r.jobs, func(j *job) bool {
			if choose(j) {
				jobs = append(jobs, j)
				return true
			}
			return false
		})
		r.count(n - len(jobs))
	}
	rs.mu.Unlock()
	rs.w.window.take(len(jobs)) // they were outside
	return jobs
}

// takeAll takes out what waits for the broker. It does nothing any more then.
func (d *delaying) takeAll() (jobs []*job) {
	for {
		select {
		case x := <-d.jobs:
			jobs = append(jobs, x.job)
		default:
			return jobs
		}
	}
}
