package main

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"time"
)

// clockTick is the unit of times in /proc: USER_HZ, which is 100 on every Linux.
const clockTick = 10 * time.Millisecond

// cpuTime is how long a process has computed, in user and kernel mode. One that has ended still tells, until it is
// waited for. Where there is no /proc it is 0.
func cpuTime(pid int) time.Duration {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(text), ") ") // the name before it may hold spaces
	f := strings.Fields(rest)
	if len(f) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return time.Duration(user+system) * clockTick
}

// resident is a process's VmRSS in MiB.
func resident(pid int) (float64, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmRSS:" {
			kb, err := strconv.Atoi(f[1])
			return float64(kb) / 1024, err
		}
	}
	return 0, errors.New("no VmRSS in the process's status")
}

// load is the machine's load average of the last minute: figures taken beside other work are worth less.
func load() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "?"
	}
	first, _, _ := strings.Cut(string(text), " ")
	return first
}

// costs are what a measured process and Redis have computed since some moment.
type costs struct {
	process      int // pid
	redis        int
	processSince time.Duration
	redisSince   time.Duration
}

func (b *bench) costsOf(process int) costs {
	redis := b.server.Pid()
	return costs{process, redis, cpuTime(process), cpuTime(redis)}
}

// run makes a run of what has been done since.
func (c costs) run(tasks int, took time.Duration) run {
	each := func(d time.Duration) float64 { return float64(d.Microseconds()) / float64(tasks) }
	return run{float64(tasks) / took.Seconds(), each(cpuTime(c.process) - c.processSince), each(cpuTime(c.redis) - c.redisSince)}
}
