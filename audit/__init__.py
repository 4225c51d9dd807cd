"""Audits the VPC endpoint connections of Huawei Cloud API gateways."""

__version__ = "0.1.0"
