package taskfile

import (
	"os"
	"regexp"
)

var variableName = regexp.MustCompile(`\$\{([A-Za-z_][A-Za-z0-9_]*)\}`)

// expander returns a function that puts the worker's environment in place of ${NAME}, for what an entry says of URLs,
// headers, variables and folders: secrets and addresses need not stand in the file. Words of a command stay as they are:
// there ${NAME} may be a shell's. What a variable holds is never read as a template. One that is not set is refused.
func expander(key string, complain func(string, ...any)) func(string) string {
	return func(text string) string {
		return variableName.ReplaceAllStringFunc(text, func(found string) string {
			name := variableName.FindStringSubmatch(found)[1]
			v, ok := os.LookupEnv(name)
			if !ok {
				complain("%s: the variable %s is not set", key, name)
			}
			return v
		})
	}
}
