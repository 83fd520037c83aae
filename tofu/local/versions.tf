terraform {
  required_version = ">= 1.8"
}

# No provider is fetched, `terraform_data` is OpenTofu's own, and no backend is named: the state is terraform.tfstate in
# this directory.
