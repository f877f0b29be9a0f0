package redisconn

import (
	"fmt"
	"slices"
	"strings"

	"github.com/gelery/gelery/internal/brokeroption"
)

// optionReaders are the transport options this package reads or knows to have no use for.
var optionReaders = map[string]func(*Config, any) error{
	"master_name":              func(c *Config, v any) error { return brokeroption.ReadText(&c.master, v) },
	"username":                 func(c *Config, v any) error { return brokeroption.ReadText(&c.user, v) },
	"password":                 func(c *Config, v any) error { return brokeroption.ReadText(&c.password, v) },
	"client_name":              func(c *Config, v any) error { return brokeroption.ReadText(&c.clientName, v) },
	"max_connections":          func(c *Config, v any) error { return brokeroption.ReadCount(&c.maxConnections, v) },
	"socket_timeout":           func(c *Config, v any) error { return brokeroption.ReadSeconds(&c.socketTimeout, v) },
	"socket_connect_timeout":   func(c *Config, v any) error { return brokeroption.ReadSeconds(&c.connectTimeout, v) },
	"socket_keepalive":         func(c *Config, v any) error { return brokeroption.ReadBool(&c.keepAlive, v) },
	"sentinel_kwargs":          readSentinelKwargs,
	"ssl":                      readSSL,
	"min_other_sentinels":      ignore, // go-redis follows whichever Sentinel answers
	"retry_on_timeout":         ignore, // callers retry with an eye on what may be repeated
	"health_check_interval":    ignore, // idle connections are checked whenever they leave the pool
	"socket_keepalive_options": ignore, // ours are fixed
}

func ignore(*Config, any) error { return nil }

// Connection picks those of a driver's options that Parse reads by itself.
func Connection(opts map[string]any) map[string]any {
	own := map[string]any{}
	for name, v := range opts {
		if optionReaders[name] != nil {
			own[name] = v
		}
	}
	return own
}

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
			err = brokeroption.ReadText(&c.sentinelUser, v)
		case "password":
			err = brokeroption.ReadText(&c.sentinelPassword, v)
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
			c.tls, err = brokeroption.TLS(nil)
		}
	case map[string]any:
		c.tls, err = brokeroption.TLS(v)
	default:
		err = fmt.Errorf("%T is neither a bool nor a map", v)
	}
	return err
}
