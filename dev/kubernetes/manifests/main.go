// Renders kustomizations and checks what comes out as an API server does that is asked to create it:
// unknown and doubled fields, defaults, validation. Without a server.
package main

import (
	"context"
	"fmt"
	"os"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	_ "k8s.io/kubernetes/pkg/apis/batch/install"
	_ "k8s.io/kubernetes/pkg/apis/core/install"
	_ "k8s.io/kubernetes/pkg/apis/networking/install"
	"k8s.io/kubernetes/pkg/registry/batch/job"
	"k8s.io/kubernetes/pkg/registry/core/configmap"
	"k8s.io/kubernetes/pkg/registry/core/persistentvolumeclaim"
	"k8s.io/kubernetes/pkg/registry/core/serviceaccount"
	"k8s.io/kubernetes/pkg/registry/networking/networkpolicy"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// What an API server does before it stores an object, by kind. A kind that is not here is refused.
var creators = map[string]rest.RESTCreateStrategy{
	"ConfigMap":             configmap.Strategy,
	"Job":                   job.Strategy,
	"NetworkPolicy":         networkpolicy.Strategy,
	"PersistentVolumeClaim": persistentvolumeclaim.Strategy,
	"ServiceAccount":        serviceaccount.Strategy,
}

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: manifests FOLDER…")
		os.Exit(2)
	}
	wrong := 0
	for _, folder := range os.Args[1:] {
		objects, mistakes := check(folder)
		for _, mistake := range mistakes {
			fmt.Fprintf(os.Stderr, "%s: %v\n", folder, mistake)
		}
		wrong += len(mistakes)
		fmt.Printf("%s: %d objects, %d mistakes\n", folder, objects, len(mistakes))
	}
	if wrong > 0 {
		os.Exit(1)
	}
}

func check(folder string) (objects int, mistakes []error) {
	rendered, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), folder)
	if err != nil {
		return 0, []error{err}
	}
	strict := serializer.NewCodecFactory(legacyscheme.Scheme, serializer.EnableStrict).UniversalDecoder()
	for _, resource := range rendered.Resources() {
		text, err := resource.AsYAML()
		if err == nil {
			err = admit(strict, text)
		}
		if err != nil {
			mistakes = append(mistakes, fmt.Errorf("%s %s: %w", resource.GetKind(), resource.GetName(), err))
		}
	}
	return rendered.Size(), mistakes
}

// Decodes into the types of the server's own (which sets defaults) and does what comes before storing.
func admit(strict runtime.Decoder, text []byte) error {
	object, kind, err := strict.Decode(text, nil, nil)
	if err != nil {
		return err
	}
	creator, known := creators[kind.Kind]
	if !known {
		return fmt.Errorf("no check for this kind: name it in dev/kubernetes/manifests/main.go")
	}
	fields, err := meta.Accessor(object)
	if err != nil {
		return err
	}
	if fields.GetNamespace() == "" {
		fields.SetNamespace("default")
	}
	rest.FillObjectMetaSystemFields(fields)
	ctx := genericapirequest.WithNamespace(context.Background(), fields.GetNamespace())
	return rest.BeforeCreate(creator, ctx, object)
}
