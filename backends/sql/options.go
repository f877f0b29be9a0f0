package sql

import (
	"fmt"
)

// options are the transport options.
type options struct {
	names, schemas map[string]string
	create         bool
}

func parseOptions(given map[string]any) (options, error) {
	o := options{create: true}
	for name, v := range given {
		var err error
		switch name {
		case "table_names":
			o.names, err = tableMap(v)
		case "table_schemas":
			o.schemas, err = tableMap(v)
		case "create_tables_at_setup":
			var ok bool
			if o.create, ok = v.(bool); !ok {
				err = fmt.Errorf("%T is not true or false", v)
			}
		default:
			return o, fmt.Errorf("transport option %q is unknown for databases; known: create_tables_at_setup, table_names, table_schemas", name)
		}
		if err != nil {
			return o, fmt.Errorf("transport option %q: %w", name, err)
		}
	}
	return o, nil
}

// tableMap reads what is given for the tables "task" and "group".
func tableMap(v any) (map[string]string, error) {
	given, ok := v.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("%T is not a map of \"task\" and \"group\"", v)
	}
	m := map[string]string{}
	for key, v := range given {
		text, ok := v.(string)
		if key != "task" && key != "group" || !ok {
			return nil, fmt.Errorf("%q: %v: expected a name for \"task\" or \"group\"", key, v)
		}
		m[key] = text
	}
	return m, nil
}
