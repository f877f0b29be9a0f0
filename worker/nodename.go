package worker

import (
	"fmt"
	"os"
	"strings"
)

// NodeName expands a worker's node name as `celery worker -n` does: %h is the host's name, %n its part before the first
// dot, %d the rest. Without "@" the pattern is the host part of a name that begins with "celery@". Empty is "celery@%h".
func NodeName(pattern string) (string, error) {
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	short, domain, _ := strings.Cut(host, ".")
	full := pattern
	switch {
	case full == "":
		full = "celery@%h"
	case !strings.Contains(full, "@"):
		full = "celery@" + full
	}
	name := strings.NewReplacer("%h", host, "%n", short, "%d", domain, "%%", "%").Replace(full)
	if strings.HasPrefix(name, "@") || strings.HasSuffix(name, "@") || strings.ContainsAny(name, " \t\r\n") {
		return "", fmt.Errorf("worker config: Hostname: %q is no node name; expected for example worker1@%%h", pattern)
	}
	return name, nil
}
