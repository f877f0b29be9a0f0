package backends

import (
	"fmt"
	"strings"
)

// The keys of Celery's key-value backends, before the id of a task or of a group.
const (
	TaskKeyPrefix  = "celery-task-meta-"
	GroupKeyPrefix = "celery-taskset-meta-"
)

// GlobalKeyPrefix reads the transport option global_keyprefix, which stands before every key. "_" comes in between unless it
// ends in one of ":_-.", which is the rule of Celery 5.5 and later (5.3 and 5.4 always put the "_"). nil is no prefix.
func GlobalKeyPrefix(option any) (string, error) {
	switch v := option.(type) {
	case nil:
		return "", nil
	case string:
		if v != "" && !strings.ContainsRune(":_-.", rune(v[len(v)-1])) {
			v += "_"
		}
		return v, nil
	}
	return "", fmt.Errorf("transport option \"global_keyprefix\": %T is not a string", option)
}
