package serialization

// serializers are all there are, in the order Names lists them.
var serializers = [...]Serializer{JSON, MsgPack, YAML, Pickle, Raw}

// Lookup finds a serializer by kombu's name ("yaml") or by its content type ("application/x-yaml"). Both are compared
// exactly, as kombu does.
func Lookup(nameOrMIME string) (Serializer, bool) {
	for _, s := range serializers {
		if s.Name() == nameOrMIME || s.ContentType() == nameOrMIME {
			return s, true
		}
	}
	return nil, false
}

// Names lists the names Lookup knows.
func Names() []string {
	names := make([]string, len(serializers))
	for i, s := range serializers {
		names[i] = s.Name()
	}
	return names
}
