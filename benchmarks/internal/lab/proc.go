package lab

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// clockTick is the unit of times in /proc: USER_HZ, which is 100 on every Linux.
const clockTick = 10 * time.Millisecond

// cpuTime is how long a process has computed, in user and kernel mode. One that has ended still tells, until it is
// waited for. Where there is no /proc it is 0.
func cpuTime(pid int) time.Duration {
	f := status(pid)
	if f == nil {
		return 0
	}
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return time.Duration(user+system) * clockTick
}

// status are the fields of a process's stat behind its name; nil if it cannot be read.
func status(pid int) []string {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return nil
	}
	_, rest, _ := strings.Cut(string(text), ") ") // the name before it may hold spaces
	if f := strings.Fields(rest); len(f) >= 15 {
		return f
	}
	return nil
}

// familyTime is cpuTime of a process and its children, those that it has waited for among them.
func familyTime(pid int) time.Duration {
	f := status(pid)
	if f == nil {
		return 0
	}
	user, _ := strconv.Atoi(f[13])
	system, _ := strconv.Atoi(f[14])
	sum := cpuTime(pid) + time.Duration(user+system)*clockTick
	all, _ := os.ReadDir("/proc")
	for _, entry := range all {
		child, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if f := status(child); f != nil && f[1] == strconv.Itoa(pid) {
			sum += cpuTime(child)
		}
	}
	return sum
}

// Times are CPU times of this process, and of a server with its children.
type Times struct{ Own, Server time.Duration }

// TimesOf are the times until now; pid 0: there is no server.
func TimesOf(pid int) (t Times) {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) == nil {
		t.Own = time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	if pid != 0 {
		t.Server = familyTime(pid)
	}
	return t
}

// Since is what has been added to earlier times.
func (t Times) Since(before Times) Times { return Times{t.Own - before.Own, t.Server - before.Server} }

// Resident is a process's VmRSS in MiB.
func Resident(pid int) (float64, error) {
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

// Load is the machine's load average of the last minute: figures taken beside other work are worth less.
func Load() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "?"
	}
	first, _, _ := strings.Cut(string(text), " ")
	return first
}

// Costs are what processes have computed since some moment.
type Costs struct {
	pids  []int
	since []time.Duration
}

// CostsOf begins to count the costs of processes.
func CostsOf(pids ...int) Costs {
	c := Costs{pids, make([]time.Duration, len(pids))}
	for i, pid := range pids {
		c.since[i] = cpuTime(pid)
	}
	return c
}

// Run makes a run of what has been done since.
func (c Costs) Run(tasks int, took time.Duration) Run {
	r := Run{Rate: float64(tasks) / took.Seconds(), Costs: make([]float64, len(c.pids))}
	for i, pid := range c.pids {
		r.Costs[i] = float64((cpuTime(pid) - c.since[i]).Microseconds()) / float64(tasks)
	}
	return r
}
