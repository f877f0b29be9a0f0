//go:build unix

package worker

import "syscall"

// resourceUsage is what getrusage tells of this process, under Python's names.
func resourceUsage() any {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return "N/A"
	}
	seconds := func(t syscall.Timeval) float64 { return float64(t.Nano()) / 1e9 }
	return map[string]any{"utime": seconds(u.Utime), "stime": seconds(u.Stime), "maxrss": int64(u.Maxrss), "ixrss": int64(u.Ixrss),
		"idrss": int64(u.Idrss), "isrss": int64(u.Isrss), "minflt": int64(u.Minflt), "majflt": int64(u.Majflt), "nswap": int64(u.Nswap),
		"inblock": int64(u.Inblock), "oublock": int64(u.Oublock), "msgsnd": int64(u.Msgsnd), "msgrcv": int64(u.Msgrcv),
		"nsignals": int64(u.Nsignals), "nvcsw": int64(u.Nvcsw), "nivcsw": int64(u.Nivcsw)}
}
