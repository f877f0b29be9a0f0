package taskfile

import (
	"fmt"
	"os"
	"regexp"
)

var variableName = regexp.MustCompile(`\$\{([A-Za-z_][A-Za-z0-9_]*)\}`)

// expand puts the worker's environment in place of ${NAME} in what an entry says of URLs, headers, variables and folders,
// so that secrets and addresses need not stand in the file. Words of a command stay as they are: ${NAME} may be a shell's.
// A variable that is not set is refused.
func (e *entry) expand(complain func(string, ...any)) {
	text := func(key, s string) string {
		return variableName.ReplaceAllStringFunc(s, func(found string) string {
			name := variableName.FindStringSubmatch(found)[1]
			v, ok := os.LookupEnv(name)
			if !ok {
				complain("%s: the variable %s is not set", key, name)
			}
			return v
		})
	}
	values := func(key string, m map[string]string) {
		for name, v := range m {
			m[name] = text(fmt.Sprintf("%s: %s", key, name), v)
		}
	}
	e.Dir = text("dir", e.Dir)
	values("env", e.Env)
	if e.HTTP != nil {
		e.HTTP.URL = text("http: url", e.HTTP.URL)
		values("http: headers", e.HTTP.Headers)
	}
}
