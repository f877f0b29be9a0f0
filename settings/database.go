package settings

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// ofTables checks a map of what is given for Celery's two tables.
func ofTables(v any) error {
	for table, name := range v.(map[string]any) {
		if _, text := name.(string); !text || table != "task" && table != "group" {
			return fmt.Errorf("%s: %v: it takes texts for task and group", table, name)
		}
	}
	return nil
}

// engineTypes are the options of SQLAlchemy's engines that can be given. Those of the type nil have no effect.
var engineTypes = map[string]func(any) bool{
	"pool_size":     func(v any) bool { n, ok := v.(int64); return ok && n >= 0 && n <= 10_000 },
	"max_overflow":  func(v any) bool { n, ok := v.(int64); return ok && n >= -1 && n <= 10_000 },
	"pool_recycle":  func(v any) bool { n, ok := v.(int64); return ok && n >= -1 && n <= 1<<31 },
	"pool_pre_ping": nil, "pool_timeout": nil, "pool_use_lifo": nil, "echo": nil, "echo_pool": nil, "future": nil,
}

func engineOptions(v any) error {
	for name, value := range v.(map[string]any) {
		check, known := engineTypes[name]
		switch {
		case !known:
			return fmt.Errorf("%s: there is no such option; those there are: %s", name, strings.Join(slices.Sorted(maps.Keys(engineTypes)), ", "))
		case check != nil && !check(value):
			return fmt.Errorf("%s: %v: it takes a whole number, pool_size from 0 to 10000, the others from -1 on", name, value)
		}
	}
	return nil
}
