// A provider for the tests with one resource, a file. A file can be changed behind OpenTofu's back, which `terraform_data`
// cannot: drift is real with it.
package main

import (
	"context"
	"log"
	"os"

	"github.com/hashicorp/terraform-plugin-framework/datasource"
	"github.com/hashicorp/terraform-plugin-framework/provider"
	"github.com/hashicorp/terraform-plugin-framework/providerserver"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/stringplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/types"
)

type test struct{}

func (test) Metadata(_ context.Context, _ provider.MetadataRequest, answer *provider.MetadataResponse) {
	answer.TypeName = "test"
}

func (test) Schema(context.Context, provider.SchemaRequest, *provider.SchemaResponse) {}

func (test) Configure(context.Context, provider.ConfigureRequest, *provider.ConfigureResponse) {}

func (test) DataSources(context.Context) []func() datasource.DataSource { return nil }

func (test) Resources(context.Context) []func() resource.Resource {
	return []func() resource.Resource{func() resource.Resource { return file{} }}
}

type file struct{}

type model struct {
	ID      types.String `tfsdk:"id"`
	Path    types.String `tfsdk:"path"`
	Content types.String `tfsdk:"content"`
}

func (file) Metadata(_ context.Context, _ resource.MetadataRequest, answer *resource.MetadataResponse) {
	answer.TypeName = "test_file"
}

func (file) Schema(_ context.Context, _ resource.SchemaRequest, answer *resource.SchemaResponse) {
	replaces := []planmodifier.String{stringplanmodifier.RequiresReplace()}
	answer.Schema = schema.Schema{Attributes: map[string]schema.Attribute{
		"id":      schema.StringAttribute{Computed: true, PlanModifiers: []planmodifier.String{stringplanmodifier.UseStateForUnknown()}},
		"path":    schema.StringAttribute{Required: true, PlanModifiers: replaces},
		"content": schema.StringAttribute{Required: true},
	}}
}

func (file) Create(cx context.Context, ask resource.CreateRequest, answer *resource.CreateResponse) {
	var wanted model
	answer.Diagnostics.Append(ask.Plan.Get(cx, &wanted)...)
	if answer.Diagnostics.HasError() {
		return
	}
	if err := os.WriteFile(wanted.Path.ValueString(), []byte(wanted.Content.ValueString()), 0o644); err != nil {
		answer.Diagnostics.AddError("cannot write the file", err.Error())
		return
	}
	wanted.ID = wanted.Path
	answer.Diagnostics.Append(answer.State.Set(cx, &wanted)...)
}

func (file) Read(cx context.Context, ask resource.ReadRequest, answer *resource.ReadResponse) {
	var known model
	answer.Diagnostics.Append(ask.State.Get(cx, &known)...)
	content, err := os.ReadFile(known.Path.ValueString())
	if os.IsNotExist(err) {
		answer.State.RemoveResource(cx)
		return
	}
	if err != nil {
		answer.Diagnostics.AddError("cannot read the file", err.Error())
		return
	}
	known.Content = types.StringValue(string(content))
	answer.Diagnostics.Append(answer.State.Set(cx, &known)...)
}

func (file) Update(cx context.Context, ask resource.UpdateRequest, answer *resource.UpdateResponse) {
	var wanted model
	answer.Diagnostics.Append(ask.Plan.Get(cx, &wanted)...)
	if err := os.WriteFile(wanted.Path.ValueString(), []byte(wanted.Content.ValueString()), 0o644); err != nil {
		answer.Diagnostics.AddError("cannot write the file", err.Error())
		return
	}
	answer.Diagnostics.Append(answer.State.Set(cx, &wanted)...)
}

func (file) Delete(cx context.Context, ask resource.DeleteRequest, answer *resource.DeleteResponse) {
	var known model
	answer.Diagnostics.Append(ask.State.Get(cx, &known)...)
	if err := os.Remove(known.Path.ValueString()); err != nil && !os.IsNotExist(err) {
		answer.Diagnostics.AddError("cannot remove the file", err.Error())
	}
}

func main() {
	serve := providerserver.ServeOpts{Address: "registry.opentofu.org/clawd/test"}
	if err := providerserver.Serve(context.Background(), func() provider.Provider { return test{} }, serve); err != nil {
		log.Fatal(err)
	}
}
