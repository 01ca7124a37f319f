// Renders templates with Go itself, for test_ollama.py: JSON lines of {"template", "data"} in, of {"text"} out.
package main

import (
	"encoding/json"
	"os"
	"strings"
	"text/template"
)

// The fields of a message that Ollama gives to a template, under the names that it has there.
type message struct {
	Role    string
	Content string
}

type work struct {
	Template string
	Data     struct {
		System, Prompt, Response string
		Messages                 []*message
	}
}

func render(one work) (string, error) {
	made, err := template.New("").Option("missingkey=zero").Parse(one.Template)
	if err != nil {
		return "", err
	}
	var out strings.Builder
	err = made.Execute(&out, map[string]any{
		"System": one.Data.System, "Messages": one.Data.Messages, "Prompt": one.Data.Prompt, "Response": "",
	})
	return out.String(), err
}

func main() {
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for in.More() {
		var one work
		if err := in.Decode(&one); err != nil {
			panic(err)
		}
		text, err := render(one)
		if err != nil {
			panic(err)
		}
		if err := out.Encode(map[string]string{"text": text}); err != nil {
			panic(err)
		}
	}
}
