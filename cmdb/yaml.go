package cmdb

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v3"
)

// YAML writes objects as documents that Plan reads: applied again where they came from, they change nothing.
func YAML(objects ...Object) ([]byte, error) {
	if len(objects) == 0 {
		return nil, nil
	}
	var out bytes.Buffer
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(2)
	for _, object := range objects {
		node, err := nodeOf(object)
		if err != nil {
			return nil, fmt.Errorf("cmdb: write %s as YAML: %w", object.Ref(), err)
		}
		if err := encoder.Encode(node); err != nil {
			return nil, fmt.Errorf("cmdb: write %s as YAML: %w", object.Ref(), err)
		}
	}
	if err := encoder.Close(); err != nil {
		return nil, fmt.Errorf("cmdb: write YAML: %w", err)
	}
	return out.Bytes(), nil
}

// nodeOf takes the detour by JSON, which has the fields' names, order and omissions.
func nodeOf(object Object) (*yaml.Node, error) {
	text, err := json.Marshal(object)
	if err != nil {
		return nil, err
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	node, err := readNode(decoder)
	if err != nil {
		return nil, err
	}
	fields := []*yaml.Node{textNode("kind"), textNode(string(object.Ref().Kind))}
	for i := 0; i+1 < len(node.Content); i += 2 {
		if node.Content[i].Value != "meta" {
			fields = append(fields, node.Content[i], node.Content[i+1])
		}
	}
	node.Content = fields
	return node, nil
}

// textNode quotes text with control characters itself: the encoder's literal blocks do not read back all of them.
func textNode(s string) *yaml.Node {
	node := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s}
	if strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		node.Style = yaml.DoubleQuotedStyle
	}
	return node
}

// readNode reads one JSON value.
func readNode(decoder *json.Decoder) (*yaml.Node, error) {
	token, err := decoder.Token()
	if err != nil {
		return nil, err
	}
	node := &yaml.Node{Kind: yaml.ScalarNode, Value: fmt.Sprint(token)}
	switch token := token.(type) {
	case string:
		return textNode(token), nil
	case bool:
		node.Tag = "!!bool"
	case json.Number:
		node.Tag = "!!float"
		if _, err := token.Int64(); err == nil {
			node.Tag = "!!int"
		}
	case nil:
		node.Tag, node.Value = "!!null", "null"
	case json.Delim:
		node = &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
		if token == '{' {
			node = &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
		}
		for decoder.More() {
			child, err := readNode(decoder)
			if err != nil {
				return nil, err
			}
			node.Content = append(node.Content, child)
		}
		_, err = decoder.Token() // the closing bracket
	}
	return node, err
}
