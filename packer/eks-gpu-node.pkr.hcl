# A node image: the EKS AL2023 image of a Kubernetes version, with the agent in it.

locals {
  # On everything that must not outlive a build: instance, volume, interface, security group, key pair. An image gets it too,
  # because EC2 makes images with the build's tags; one without `rollcall:agent` is of a build that was cut off.
  build_tags = merge(var.tags, {
    "rollcall:image-build" = var.image_name
    "Name"                 = "build of ${var.image_name}"
  })

  # What `control` chooses images by. `rollcall:channel` is not among them: a build promotes nothing.
  image_tags = merge(var.tags, {
    "rollcall:agent"        = var.agent_version
    "rollcall:agent-sha256" = var.agent_sha256
    "rollcall:architecture" = var.architecture
    "rollcall:driver"       = var.driver_branch
    "rollcall:k8s"          = var.kubernetes_version
    "rollcall:source"       = var.source_ami
    "Name"                  = var.image_name
  })

  description = "Rollcall ${var.agent_version} on ${var.source_ami}: Kubernetes ${var.kubernetes_version}, ${var.architecture}, driver ${var.driver_branch}"

  image_manifest = "${trimsuffix(var.manifest_path, ".json")}-image.json"
  on_machine     = "/usr/share/rollcall/image.json"
}

source "amazon-ebs" "eks_gpu_node" {
  region              = var.region
  custom_endpoint_ec2 = var.endpoint_ec2

  ami_name        = var.image_name
  ami_description = var.image_description != "" ? var.image_description : local.description
  # Instances of the image demand IMDSv2, even where nobody thinks of it.
  imds_support  = "v2.0"
  tags          = local.image_tags
  snapshot_tags = local.image_tags

  source_ami           = var.source_ami
  instance_type        = var.instance_type
  subnet_id            = var.subnet_id
  iam_instance_profile = var.iam_instance_profile
  # A machine that switches itself off is gone, not a bill.
  shutdown_behavior = "terminate"
  run_tags          = local.build_tags
  run_volume_tags   = local.build_tags

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  # Encrypted from the first block on: an image that is encrypted afterwards is copied once more.
  launch_block_device_mappings {
    device_name           = "/dev/xvda"
    volume_type           = "gp3"
    volume_size           = var.volume_size_gib
    encrypted             = true
    kms_key_id            = var.kms_key_id
    delete_on_termination = true
  }

  ssh_interface           = var.ssh_interface
  ssh_username            = "ec2-user"
  ssh_timeout             = "10m"
  temporary_key_pair_type = "ed25519"
  # Never: plugin 1.8.1 (x/crypto 0.52) asks sessions that have ended too, and each of these questions keeps a processor busy
  # until the build is over.
  ssh_keep_alive_interval               = "-1s"
  temporary_security_group_source_cidrs = var.ssh_source_cidrs

  # Half an hour for whatever is waited for: a snapshot of 20 GiB takes minutes.
  aws_polling {
    delay_seconds = var.polling_seconds
    max_attempts  = ceil(1800 / var.polling_seconds)
  }
}

build {
  name    = "rollcall"
  sources = ["source.amazon-ebs.eks_gpu_node"]

  provisioner "file" {
    source      = var.agent_tarball
    destination = "/tmp/rollcall-agent.tar.gz"
  }

  provisioner "shell" {
    execute_command = "sudo env {{ .Vars }} bash {{ .Path }}"
    environment_vars = [
      "AGENT_SHA256=${var.agent_sha256}",
      "AGENT_TARBALL=/tmp/rollcall-agent.tar.gz",
      "AGENT_VERSION=${var.agent_version}",
      "ARCHITECTURE=${var.architecture}",
      "DRIVER_BRANCH=${var.driver_branch}",
      "IMAGE_MANIFEST=${local.on_machine}",
      "IMAGE_NAME=${var.image_name}",
      "KUBERNETES_VERSION=${var.kubernetes_version}",
      "SOURCE_AMI=${var.source_ami}",
    ]
    scripts = [
      "${path.root}/provision/ready.sh",
      "${path.root}/provision/install.sh",
      "${path.root}/provision/manifest.sh",
    ]
  }

  provisioner "file" {
    direction   = "download"
    source      = local.on_machine
    destination = local.image_manifest
  }

  # From here on nobody can log in any more: the connection that is open does the rest.
  provisioner "shell" {
    execute_command = "sudo env {{ .Vars }} bash {{ .Path }}"
    scripts = [
      "${path.root}/provision/cleanup.sh",
      "${path.root}/provision/scan.sh",
      "${path.root}/provision/check.sh",
    ]
  }

  post-processor "manifest" {
    output     = var.manifest_path
    strip_path = true
    custom_data = {
      agent_version      = var.agent_version
      agent_sha256       = var.agent_sha256
      architecture       = var.architecture
      driver_branch      = var.driver_branch
      image_name         = var.image_name
      kubernetes_version = var.kubernetes_version
      source_ami         = var.source_ami
    }
  }
}
