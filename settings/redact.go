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
	openName   = regexp.MustCompile(`(?i)(routing|binding)_key$|^global_keyprefix$|^socket_keepalive`)
)

// Shown is the value as it may be shown to anybody: as it would stand in a file, without the passwords of URLs, and
// hidden where its name, or one within it, speaks of a secret.
func (v Value) Shown() any {
	if v.shape != nil {
		return shownValue(v.Name, v.shape)
	}
	return shownValue(v.Name, v.Value)
}

func shownValue(name string, v any) any {
	if secretName.MatchString(name) && !openName.MatchString(name) && v != nil && v != "" {
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
			all[i] = shownValue("", v[i])
		}
		return all
	case map[string]any:
		all := make(map[string]any, len(v))
		for k := range v {
			all[k] = shownValue(k, v[k])
		}
		return all
	}
	return brokerurl.Redact(fmt.Sprint(v))
}
