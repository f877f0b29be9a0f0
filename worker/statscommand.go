package worker

import (
	"context"
	"strconv"
	"time"

	"github.com/gelery/gelery/internal/brokerurl"
)

// statsCommand answers with the worker's figures in Celery's form. What a Go worker has not is what Celery shows for none.
func statsCommand(_ context.Context, w *Worker, _ arguments) (any, error) {
	s := w.Stats()
	total := make(map[string]any, len(s.Total))
	for name, n := range s.Total {
		total[name] = n
	}
	processes := make([]any, len(s.Processes))
	for i, pid := range s.Processes {
		processes[i] = int64(pid)
	}
	perChild := any("N/A")
	if s.MaxTasksPerChild > 0 {
		perChild = int64(s.MaxTasksPerChild)
	}
	out := map[string]any{"total": total, "pid": int64(ownPID), "clock": strconv.FormatInt(w.clock.Load(), 10),
		"uptime": int64(time.Since(w.since).Round(time.Second) / time.Second), "prefetch_count": int64(s.Prefetch),
		"broker": w.describeBroker(), "rusage": resourceUsage(),
		"pool": map[string]any{"implementation": "gelery.worker:" + w.config.Pool, "max-concurrency": int64(s.Concurrency), "processes": processes,
			"max-tasks-per-child": perChild, "put-guarded-by-semaphore": false, "writes": "N/A",
			"timeouts": []any{secondsValue(s.SoftTimeLimit), secondsValue(s.TimeLimit)}}}
	if a := s.Autoscale; a != nil {
		out["autoscaler"] = map[string]any{"max": int64(a.Max), "min": int64(a.Min), "current": int64(a.Current), "qty": int64(a.Jobs)}
	}
	return out, nil
}

// describeBroker has the members of kombu's Connection.info, without the password.
func (w *Worker) describeBroker() map[string]any {
	c := w.client.Config()
	options := c.TransportOptions
	broker := map[string]any{"hostname": nil, "userid": nil, "virtual_host": nil, "port": nil, "insist": false, "ssl": false,
		"transport": "memory", "connect_timeout": int64(4), "transport_options": censored(options), "login_method": nil, "uri_prefix": nil,
		"heartbeat": 120.0, "failover_strategy": "round-robin", "alternates": []any{}, "credential_provider": nil}
	urls, err := brokerurl.Parse(c.Broker)
	if err != nil || len(urls) == 0 {
		return broker
	}
	u := &urls[0]
	broker["transport"] = u.Scheme
	broker["hostname"] = orElse(u.Host, "localhost")
	if u.User != "" {
		broker["userid"] = u.User
	}
	port, path := 6379, orElse(u.Path, "0")
	if u.Scheme == "amqp" || u.Scheme == "amqps" || u.Scheme == "pyamqp" {
		port, path = 5672, orElse(u.Path, "/")
		if u.Scheme == "amqps" {
			port = 5671
		}
		broker["login_method"] = "PLAIN"
	}
	if u.Port != 0 {
		port = u.Port
	}
	broker["port"], broker["virtual_host"] = int64(port), path
	broker["ssl"] = u.Scheme == "amqps" || u.Scheme == "rediss" || options["ssl"] != nil && options["ssl"] != false
	others := []any{}
	for i := range urls[1:] {
		others = append(others, urls[1+i].Redacted())
	}
	broker["alternates"] = others
	return broker
}
