package backends

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

// The keys of Celery's key-value backends, before the id of a task or of a group.
const (
	TaskKeyPrefix  = "celery-task-meta-"
	GroupKeyPrefix = "celery-taskset-meta-"
)

// ClaimKeyPrefix begins the keys that stores without keys of their own choosing keep claims under ([Claimer]).
const ClaimKeyPrefix = "_gelery.claim."

// ClaimKey is the key of a claim, ClaimKeyPrefix and 64 characters, whatever the name holds and however long it is.
func ClaimKey(name string) string { return ClaimKeyPrefix + digest(name) }

// ClaimHolder is what is stored of a holder there, 64 characters.
func ClaimHolder(holder string) string { return digest(holder) }

func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

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
