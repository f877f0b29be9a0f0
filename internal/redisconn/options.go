package redisconn

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// optionReaders are the transport options this package reads or knows to have no use for.
var optionReaders = map[string]func(*Config, any) error{
	"master_name":              func(c *Config, v any) error { return readText(&c.master, v) },
	"username":                 func(c *Config, v any) error { return readText(&c.user, v) },
	"password":                 func(c *Config, v any) error { return readText(&c.password, v) },
	"client_name":              func(c *Config, v any) error { return readText(&c.clientName, v) },
	"max_connections":          func(c *Config, v any) error { return readCount(&c.maxConnections, v) },
	"socket_timeout":           func(c *Config, v any) error { return readSeconds(&c.socketTimeout, v) },
	"socket_connect_timeout":   func(c *Config, v any) error { return readSeconds(&c.connectTimeout, v) },
	"socket_keepalive":         func(c *Config, v any) error { return readBool(&c.keepAlive, v) },
	"sentinel_kwargs":          readSentinelKwargs,
	"ssl":                      readSSL,
	"min_other_sentinels":      ignore, // go-redis follows whichever Sentinel answers
	"retry_on_timeout":         ignore, // callers retry with an eye on what may be repeated
	"health_check_interval":    ignore, // idle connections are checked whenever they leave the pool
	"socket_keepalive_options": ignore, // ours are fixed
}

func ignore(*Config, any) error { return nil }

func (c *Config) readOptions(opts map[string]any, known []string) error {
	for name, v := range opts {
		if v == nil || slices.Contains(known, name) {
			continue
		}
		read := optionReaders[name]
		if read == nil {
			all := slices.Clone(known)
			for n := range optionReaders {
				all = append(all, n)
			}
			slices.Sort(all)
			return fmt.Errorf("transport option %q is unknown for Redis; known: %s", name,
				strings.Join(slices.Compact(all), ", "))
		}
		if err := read(c, v); err != nil {
			return fmt.Errorf("transport option %q: %w", name, err)
		}
	}
	return nil
}

func readSentinelKwargs(c *Config, v any) error {
	m, ok := v.(map[string]any)
	if !ok {
		return fmt.Errorf("%T is not a map", v)
	}
	for name, v := range m {
		var err error
		switch name {
		case "username":
			err = readText(&c.sentinelUser, v)
		case "password":
			err = readText(&c.sentinelPassword, v)
		default:
			err = fmt.Errorf("unknown; known: password, username")
		}
		if err != nil {
			return fmt.Errorf("%q: %w", name, err)
		}
	}
	return nil
}

func readSSL(c *Config, v any) (err error) {
	switch v := v.(type) {
	case bool:
		if v && c.tls == nil {
			c.tls, err = tlsConfig(nil)
		}
	case map[string]any:
		c.tls, err = tlsConfig(v)
	default:
		err = fmt.Errorf("%T is neither a bool nor a map", v)
	}
	return err
}

func readText(dst *string, v any) error {
	s, ok := v.(string)
	if !ok {
		return fmt.Errorf("%T is not a string", v)
	}
	*dst = s
	return nil
}

func readBool(dst *bool, v any) error {
	switch v := v.(type) {
	case bool:
		*dst = v
		return nil
	case string: // from a query or an environment variable
		switch strings.ToLower(v) {
		case "true", "yes", "on", "1":
			*dst = true
			return nil
		case "false", "no", "off", "0":
			*dst = false
			return nil
		}
	}
	return fmt.Errorf("%v is not a bool", v)
}

func readCount(dst *int, v any) error {
	n, ok := number(v)
	if !ok || n < 1 || n > math.MaxInt32 || n != math.Trunc(n) {
		return fmt.Errorf("%v is not a positive whole number", v)
	}
	*dst = int(n)
	return nil
}

func readSeconds(dst *time.Duration, v any) error {
	if d, ok := v.(time.Duration); ok && d > 0 {
		*dst = d
		return nil
	}
	n, ok := number(v)
	if !ok || !(n > 0) || n > 1e6 {
		return fmt.Errorf("%v is not a positive number of seconds", v)
	}
	*dst = time.Duration(n * float64(time.Second))
	return nil
}

// number reads what configuration files and Go callers write for a number.
func number(v any) (float64, bool) {
	switch v := v.(type) {
	case int:
		return float64(v), true
	case int32:
		return float64(v), true
	case int64:
		return float64(v), true
	case uint64:
		return float64(v), true
	case float64:
		return v, true
	}
	return 0, false
}
