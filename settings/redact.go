package settings

import (
	"fmt"
	"regexp"
	"time"

	"github.com/gelery/gelery/internal/brokerurl"
)

const hidden = "********"

// secret names are those whose values are not shown: Celery's own rule, but for keys that route.
var (
	secretName = regexp.MustCompile(`(?i)api|token|key|secret|pass|signature`)
	openName   = regexp.MustCompile(`(?i)(routing|binding)_key$|^global_keyprefix$|^redbeat_(key_prefix|lock_key)$|^socket_keepalive`)
)

// Shown is the value as it may be shown to anybody: as it would stand in a file, without the passwords of URLs, and
// hidden where its name, or one within it, speaks of a secret.
func (v Value) Shown() any {
	if v.shape != nil {
		return shownValue(nil, v.Name, v.shape) // its keys are names of tasks and queues
	}
	return shownValue(isSecret, v.Name, v.Value)
}

// isSecret tells whether a name speaks of a secret.
func isSecret(name string) bool { return secretName.MatchString(name) && !openName.MatchString(name) }

// confidential tells whether a value of the setting may hold a secret, so that no error shows it.
func (s *Setting) confidential() bool {
	return s.Type == URL || s.Type == Options || s.Type == Any || isSecret(s.Name)
}

// shownValue hides what stands under a secret name; with nil no name is one.
func shownValue(secret func(string) bool, name string, v any) any {
	if secret != nil && secret(name) && v != nil && v != "" {
		return hidden
	}
	switch v := v.(type) {
	case nil, bool, int, int64, float64:
		return v
	case string:
		return brokerurl.Redact(v)
	case time.Duration:
		return v.Seconds()
	case []string:
		all := make([]string, len(v))
		for i := range v {
			all[i] = brokerurl.Redact(v[i])
		}
		return all
	case []any:
		all := make([]any, len(v))
		for i := range v {
			all[i] = shownValue(secret, "", v[i])
		}
		return all
	case map[string]any:
		all := make(map[string]any, len(v))
		for k := range v {
			all[k] = shownValue(secret, k, v[k])
		}
		return all
	}
	return brokerurl.Redact(fmt.Sprint(v))
}
